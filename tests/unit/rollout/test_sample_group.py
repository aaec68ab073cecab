import pytest
import torch

from vggrpo.flow import TRANSITIONS, SigmaSchedule, ode_step
from vggrpo.rollout import initial_noise, sample_group, sample_ode, step_generators

SHAPE = (4, 2, 4, 6)
SEEDS = [11, 12, 13, 14, 15]
SCHEDULE = SigmaSchedule.unipc(6, shift=3.0)


def draw(policy, embeds, seeds=SEEDS, **settings):
    return sample_group(policy, embeds[0][0], SCHEDULE, seeds, SHAPE, **settings)


def velocity(policy, x, sigma, prompt):
    with torch.no_grad():
        return policy.velocity(x, sigma, prompt.expand(len(x), -1, -1))


def test_what_a_group_holds(policy, embeds):
    group = draw(policy, embeds, prompt_id="red-ball")
    assert group.prompt_id == "red-ball"
    assert group.seeds == tuple(SEEDS)
    assert (group.group_size, group.num_steps) == (5, 5)
    assert group.latents.shape == (5, *SHAPE)
    assert group.states.shape == (5, 6, *SHAPE)
    assert group.old_log_probs.shape == (5, 5)
    assert group.sigmas == tuple(SCHEDULE.sigmas[:6].tolist())
    assert group.latents.dtype == group.states.dtype == group.old_log_probs.dtype == torch.float32
    assert not any(t.requires_grad for t in (group.latents, group.states, group.old_log_probs))
    assert torch.equal(group.states[:, 0], initial_noise(SEEDS, SHAPE))


@pytest.mark.parametrize("kind", TRANSITIONS)
@pytest.mark.parametrize("storage_dtype", [torch.float32, torch.bfloat16])
def test_every_state_is_stepped_from_and_scored_as_it_is_stored(linear_policy, embeds, kind, storage_dtype):
    """Each stored state follows from the one before, bit for bit, by the transition alone."""
    group = draw(linear_policy, embeds, transition=kind, noise_scale=0.6, storage_dtype=storage_dtype)
    assert group.states.dtype == storage_dtype
    for index, (sigma, sigma_next) in enumerate(list(SCHEDULE.steps())[:-1]):
        x = group.states[:, index].float()
        step = TRANSITIONS[kind](x, velocity(linear_policy, x, sigma, embeds[0][0]), sigma, sigma_next, 0.6)
        x_next = step.sample(step_generators(SEEDS, index)).to(storage_dtype)
        assert torch.equal(group.states[:, index + 1], x_next)
        torch.testing.assert_close(group.old_log_probs[:, index], step.log_prob(x_next).detach())


def test_the_last_step_is_the_ode(policy, embeds):
    group = draw(policy, embeds)
    sigma, sigma_next = SCHEDULE.step(5)
    assert sigma_next == 0.0
    x = group.states[:, -1]
    assert torch.equal(
        group.latents, ode_step(x, velocity(policy, x, sigma, embeds[0][0]), sigma, sigma_next)
    )


@pytest.mark.parametrize("window", [(0, 2), (1, 3), (4, 1)])
def test_a_window_is_entered_and_left_along_the_ode(policy, embeds, window):
    start, length = window
    group = draw(policy, embeds, window=window)
    assert group.num_steps == length
    assert group.sigmas == tuple(SCHEDULE.sigmas[start : start + length + 1].tolist())
    x = initial_noise(SEEDS, SHAPE)
    for sigma, sigma_next in list(SCHEDULE.steps())[:start]:
        x = ode_step(x, velocity(policy, x, sigma, embeds[0][0]), sigma, sigma_next)
    assert torch.equal(group.states[:, 0], x)
    x = group.states[:, -1]
    for sigma, sigma_next in list(SCHEDULE.steps())[start + length :]:
        x = ode_step(x, velocity(policy, x, sigma, embeds[0][0]), sigma, sigma_next)
    assert torch.equal(group.latents, x)


def test_the_noise_of_a_step_does_not_depend_on_the_window(linear_policy, embeds):
    """Step 3 adds the noise of (seed, 3), whether or not the steps before it were stochastic."""
    for window in ((0, 4), (3, 1)):
        group = draw(linear_policy, embeds, window=window)
        x, x_next = group.states[:, -2], group.states[:, -1]
        sigma, sigma_next = SCHEDULE.step(3)
        step = TRANSITIONS["flow_sde"](
            x, velocity(linear_policy, x, sigma, embeds[0][0]), sigma, sigma_next, 0.7
        )
        assert torch.equal(x_next, step.sample(step_generators(SEEDS, 3)))


@pytest.mark.parametrize("window", [(0, 0), (2, 0)])
@pytest.mark.parametrize("storage_dtype", [torch.float32, torch.bfloat16])
def test_an_empty_window_is_the_ode(policy, embeds, window, storage_dtype):
    group = draw(policy, embeds, window=window, storage_dtype=storage_dtype)
    assert group.states.shape == (5, 0, *SHAPE)
    assert group.sigmas == ()
    prompts = embeds[0][:1].expand(5, -1, -1)
    latents = sample_ode(policy, prompts, SCHEDULE, seeds=SEEDS, latent_shape=SHAPE)
    assert torch.equal(group.latents, latents)


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 7])
def test_a_member_does_not_depend_on_its_batch(linear_policy, embeds, micro_batch):
    whole = draw(linear_policy, embeds)
    parts = draw(linear_policy, embeds, micro_batch=micro_batch)
    assert torch.equal(parts.latents, whole.latents)
    assert torch.equal(parts.states, whole.states)
    assert torch.equal(parts.old_log_probs, whole.old_log_probs)
    some = draw(linear_policy, embeds, seeds=[14, 12])
    assert torch.equal(some.states, whole.states[[3, 1]])


def test_a_member_of_a_real_transformer_does_not_depend_on_its_batch(wan_policy, embeds):
    whole = draw(wan_policy, embeds)
    alone = draw(wan_policy, embeds, seeds=SEEDS[2:3])
    torch.testing.assert_close(alone.latents, whole.latents[2:3], rtol=0.0, atol=1e-4)
    torch.testing.assert_close(
        draw(wan_policy, embeds, micro_batch=2).latents, whole.latents, rtol=0.0, atol=1e-4
    )


def test_members_differ_and_a_seed_repeats(linear_policy, embeds):
    first, second = draw(linear_policy, embeds), draw(linear_policy, embeds)
    assert torch.equal(first.latents, second.latents)
    gaps = (first.latents[:, None] - first.latents[None]).flatten(2).abs().amax(dim=2)
    assert (gaps[~torch.eye(5, dtype=torch.bool)] > 0.1).all()


def test_members_may_share_the_initial_noise_but_not_the_path(linear_policy, embeds):
    group = draw(linear_policy, embeds, shared_noise_seed=99, micro_batch=2)
    assert torch.equal(group.states[:, 0], initial_noise([99] * 5, SHAPE))
    assert (group.states[1:, 1] != group.states[:1, 1]).any(dim=1).all()
    # The noise of a member's steps stays its own: the same as without sharing.
    moved = group.states[:, 1] - draw(linear_policy, embeds, shared_noise_seed=7).states[:, 1]
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=0.0, atol=1e-5)


def test_shared_steps_up_to_where_members_part_are_computed_once(policy, embeds, monkeypatch):
    """Against every member's own way from the same noise; and by counting the samples that are denoised."""
    denoised, plain = [], policy.velocity

    def counting(latents, *arguments, **options):
        denoised.append(len(latents))
        return plain(latents, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(policy, "velocity", counting)
        shared = draw(policy, embeds, shared_noise_seed=99, window=(3, 2), micro_batch=2)
    assert sum(denoised) == 3 + 1 + 2 * len(SEEDS)
    x = initial_noise([99] * len(SEEDS), SHAPE)
    for sigma, sigma_next in list(SCHEDULE.steps())[:3]:
        x = ode_step(x, velocity(policy, x, sigma, embeds[0][0]), sigma, sigma_next)
    torch.testing.assert_close(shared.states[:, 0], x, rtol=1e-4, atol=1e-4)
    assert torch.equal(shared.states[0, 0], shared.states[4, 0])


def test_a_shared_noise_that_is_a_members_own_seed_is_not_its_step_noise(linear_policy, embeds):
    group = draw(linear_policy, embeds, shared_noise_seed=SEEDS[0])
    start, step = group.states[0, 0].flatten(), (group.states[0, 1] - group.states[1, 1]).flatten()
    assert abs(float(torch.corrcoef(torch.stack([start, step]))[0, 1])) < 0.3


def test_classifier_free_guidance(policy, embeds):
    prompts, negative = embeds
    guided = draw(policy, embeds, window=(0, 0), cfg_scale=4.0, negative_prompt_embeds=negative)
    x = initial_noise(SEEDS, SHAPE)
    for sigma, sigma_next in SCHEDULE.steps():
        unconditional = velocity(policy, x, sigma, negative)
        v = unconditional + 4.0 * (velocity(policy, x, sigma, prompts[0]) - unconditional)
        x = ode_step(x, v, sigma, sigma_next)
    torch.testing.assert_close(guided.latents, x, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(guided.latents, draw(policy, embeds, window=(0, 0)).latents, atol=1e-2)


def test_without_guidance_the_negative_prompt_costs_nothing(linear_policy, embeds):
    group = draw(linear_policy, embeds, negative_prompt_embeds=embeds[1])
    assert group.condition.negative_prompt_embeds is None
    assert {call[2] for call in linear_policy.calls} == {1.0}
    assert torch.equal(group.latents, draw(linear_policy, embeds).latents)


def test_micro_batches_and_progress(linear_policy, embeds):
    seen = []
    draw(linear_policy, embeds, micro_batch=2, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 18) for i in range(1, 19)]
    assert [call[0] for call in linear_policy.calls[::6]] == [2, 2, 1]
    assert [call[1] for call in linear_policy.calls[:6]] == SCHEDULE.sigmas[:-1].tolist()


def test_a_policy_that_diverged_is_named(linear_policy, embeds):
    with torch.no_grad():
        linear_policy.lora.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"velocity at sigma 0\.999999 is not finite"):
        draw(linear_policy, embeds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": (0, 6)}, r"only the first 5 of 6 steps"),
        ({"window": (-1, 2)}, r"start -1"),
        ({"window": (3, 3)}, r"start 3, length 3"),
        ({"transition": "sde"}, r"'sde', expected one of flow_sde, dance_sde, cps"),
        ({"noise_scale": 0.0}, r"noise_scale is 0\.0, but the window has 5"),
        ({"cfg_scale": 4.0}, r"cfg_scale is 4\.0, which needs negative_prompt_embeds"),
        ({"cfg_scale": 4.0, "negative_prompt_embeds": torch.zeros(2, 16)}, r"expected \(3, 16\)"),
        ({"micro_batch": 0}, r"micro_batch is 0"),
        ({"storage_dtype": torch.int8}, r"storage_dtype is torch\.int8"),
        ({"seeds": []}, r"at least one seed"),
        ({"seeds": [1, 1]}, r"the same sample"),
    ],
)
def test_bad_settings_are_refused(linear_policy, embeds, settings, message):
    with pytest.raises(ValueError, match=message):
        draw(linear_policy, embeds, **settings)
    assert linear_policy.calls == []


def test_one_prompt_for_one_group(linear_policy, embeds):
    with pytest.raises(ValueError, match=r"expected one prompt, \[L, D\]"):
        sample_group(linear_policy, embeds[0], SCHEDULE, SEEDS, SHAPE)
