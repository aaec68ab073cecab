from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal

from vggrpo.flow import TRANSITIONS, SigmaSchedule
from vggrpo.rollout import RolloutGroup, rescore, sample_group, shares_state

SHAPE = (4, 2, 4, 6)
SEEDS = [11, 12, 13, 14]
SCHEDULE = SigmaSchedule.unipc(5, shift=3.0)


def draw(policy, embeds, **settings) -> RolloutGroup:
    settings = {"cfg_scale": 2.5, "negative_prompt_embeds": embeds[1], **settings}
    return sample_group(policy, embeds[0][0], SCHEDULE, SEEDS, SHAPE, **settings)


@pytest.mark.parametrize("kind", TRANSITIONS)
@pytest.mark.parametrize("storage_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, (1, 2)])
def test_the_ratio_is_one_under_the_policy_that_drew_the_group(policy, embeds, kind, storage_dtype, window):
    group = draw(policy, embeds, transition=kind, storage_dtype=storage_dtype, window=window)
    for step in range(group.num_steps):
        current = rescore(policy, group, step)
        ratio = (current.log_prob.detach() - group.old_log_probs[:, step]).exp()
        assert float((ratio - 1).abs().max()) <= 1e-6


@pytest.mark.parametrize("storage_dtype", [torch.float32, torch.bfloat16])
def test_the_ratio_is_one_in_other_micro_batches_too(wan_policy, embeds, storage_dtype):
    group = draw(wan_policy, embeds, storage_dtype=storage_dtype, micro_batch=3)
    for step in range(group.num_steps):
        for start in range(0, 4, 2):
            members = slice(start, start + 2)
            current = rescore(wan_policy, group, step, members)
            ratio = (current.log_prob.detach() - group.old_log_probs[members, step]).exp()
            assert float((ratio - 1).abs().max()) <= 1e-6


def test_scoring_the_unrounded_path_would_show(linear_policy, embeds):
    """The tolerance of the ratio is far below what rounding the states after scoring them would cost."""
    exact = draw(linear_policy, embeds)
    rounded = RolloutGroup(**{**vars(exact), "states": exact.states.bfloat16()})
    ratio = (rescore(linear_policy, rounded, 1).log_prob.detach() - exact.old_log_probs[:, 1]).exp()
    assert float((ratio - 1).abs().max()) > 1e-4


def test_members_are_rescored_alone_or_together(linear_policy, embeds):
    group = draw(linear_policy, embeds)
    together = rescore(linear_policy, group, 1)
    part = rescore(linear_policy, group, 1, slice(1, 3))
    assert part.log_prob.shape == (2,)
    assert torch.equal(part.log_prob, together.log_prob[1:3])
    taken = rescore(linear_policy, group.take(slice(1, 3)), 1)
    assert torch.equal(part.log_prob, taken.log_prob)


def test_log_prob_after_an_update_is_that_of_the_moved_gaussian(linear_policy, embeds):
    group = draw(linear_policy, embeds, cfg_scale=1.0)
    with torch.no_grad():
        linear_policy.lora.fill_(0.3)
    current = rescore(linear_policy, group, 2)
    x, x_next = group.states[:, 2].double(), group.states[:, 3].double()
    sigma, sigma_next = SCHEDULE.step(2)
    v = (1.3 + sigma) * x - float(embeds[0][0].double().mean())
    s = 0.7 * (sigma / (1 - sigma)) ** 0.5
    mean = x + (v + s**2 / (2 * sigma) * (x + (1 - sigma) * v)) * (sigma_next - sigma)
    expected = Normal(mean, s * (sigma - sigma_next) ** 0.5).log_prob(x_next).flatten(1).mean(dim=1)
    torch.testing.assert_close(current.log_prob.detach().double(), expected, rtol=0.0, atol=1e-5)
    assert float((current.log_prob.detach() - group.old_log_probs[:, 2]).abs().min()) > 1e-3


def test_the_gradient_reaches_the_policy_and_raising_log_prob_works(linear_policy, embeds):
    group = draw(linear_policy, embeds)
    log_prob = rescore(linear_policy, group, 1).log_prob
    log_prob[0].backward()
    gradient = float(linear_policy.lora.grad)
    with torch.no_grad():
        linear_policy.lora.add_(1e-2 * gradient / abs(gradient))
    assert bool(rescore(linear_policy, group, 1).log_prob[0] > log_prob[0])


def test_kl_to_the_base_model_is_zero_before_training_and_differentiable_after(linear_policy, embeds):
    group = draw(linear_policy, embeds)

    def kl():
        current = rescore(linear_policy, group, 1)
        with torch.no_grad(), linear_policy.lora_disabled():
            reference = rescore(linear_policy, group, 1)
        return current.transition.kl(reference.transition)

    assert torch.equal(kl().detach(), torch.zeros(4))
    with torch.no_grad():
        linear_policy.lora.fill_(0.2)
    kl().sum().backward()
    assert (kl() > 0).all()
    assert float(linear_policy.lora.grad) > 0


def test_kl_and_gradient_of_a_real_lora_policy(wan_policy, embeds):
    group = draw(wan_policy, embeds)
    current = rescore(wan_policy, group, 1)
    with torch.no_grad(), wan_policy.lora_disabled():
        reference = rescore(wan_policy, group, 1)
    kl = current.transition.kl(reference.transition)
    assert (kl > 0).all()
    (current.log_prob - kl).sum().backward()
    gradients = [parameter.grad for parameter in wan_policy.trainable_parameters().values()]
    assert all(gradient is not None and bool(gradient.abs().max() > 0) for gradient in gradients)
    assert not reference.log_prob.requires_grad


def test_a_shared_state_is_rescored_by_one_pass_with_the_gradient_of_all(wan_policy, embeds):
    """Against the same group, told that its members have states of their own."""
    shared = draw(wan_policy, embeds, shared_noise_seed=9, window=(1, 2), micro_batch=3)
    own = replace(shared, shared_start=False)
    assert [shares_state(shared, step) for step in range(2)] == [True, False]
    assert not shares_state(own, 0)
    advantages = torch.tensor([1.0, -2.0, 0.5, 0.7])
    gradients, log_probs = [], []
    for group in (shared, own):
        current = rescore(wan_policy, group, 0)
        log_probs.append(current.log_prob.detach())
        loss = (advantages * current.log_prob).sum()
        found = torch.autograd.grad(loss, list(wan_policy.trainable_parameters().values()))
        gradients.append(torch.cat([each.flatten() for each in found]))
    assert torch.equal(log_probs[0], shared.old_log_probs[:, 0])
    torch.testing.assert_close(log_probs[0], log_probs[1], rtol=0.0, atol=1e-5)
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


def test_one_pass_serves_all_members_of_a_shared_state(linear_policy, embeds):
    group = draw(linear_policy, embeds, cfg_scale=1.0, shared_noise_seed=9)
    linear_policy.calls.clear()
    rescore(linear_policy, group, 0)
    rescore(linear_policy, group, 0, slice(1, 4))
    rescore(linear_policy, group, 1)
    assert [batch for batch, _, _ in linear_policy.calls] == [1, 1, 4]


def test_a_member_that_was_left_out_does_not_stand_for_the_others(linear_policy, embeds):
    group = draw(linear_policy, embeds, shared_noise_seed=9)
    group.states[0] = 0.0
    group.old_log_probs[0] = torch.nan
    log_prob = rescore(linear_policy, group, 0).log_prob.detach()
    assert torch.equal(log_prob[1:], group.old_log_probs[1:, 0])


def test_a_step_outside_the_window_is_refused(linear_policy, embeds):
    group = draw(linear_policy, embeds, window=(1, 2))
    for step in (-1, 2):
        with pytest.raises(ValueError, match=f"step is {step}, but the group has 2 scored steps"):
            rescore(linear_policy, group, step)


def test_group_to_and_take_keep_what_was_scored(linear_policy, embeds):
    group = draw(linear_policy, embeds, storage_dtype=torch.bfloat16).to("cpu").take(slice(2, 4))
    assert group.seeds == (13, 14)
    assert group.states.dtype == torch.bfloat16
    assert group.group_size == len(group.latents) == len(group.old_log_probs) == 2


def test_a_group_that_does_not_fit_together_is_refused(linear_policy, embeds):
    group = vars(draw(linear_policy, embeds))
    with pytest.raises(ValueError, match=r"states has shape .* for 4 seeds, 4 scored steps"):
        RolloutGroup(**{**group, "states": group["states"][:, 1:]})
    with pytest.raises(ValueError, match=r"sigmas has shape \(4,\), expected \(5,\)"):
        RolloutGroup(**{**group, "sigmas": group["sigmas"][1:]})
    with pytest.raises(ValueError, match=r"latents has shape \(3,\), expected \(4,\)"):
        RolloutGroup(**{**group, "latents": group["latents"][:3]})
    with pytest.raises(ValueError, match=r"expected \[K, S\]"):
        RolloutGroup(**{**group, "old_log_probs": group["old_log_probs"][0]})
