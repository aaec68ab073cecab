import pytest
import torch

from vggrpo.flow import SigmaSchedule
from vggrpo.rollout import initial_noise, sample_ode

SHAPE = (4, 2, 4, 6)
SEEDS = [1, 2, 3, 4, 5]
SCHEDULE = SigmaSchedule.linear(4)


def test_seeds_and_their_noises_give_the_same_samples(policy, embeds):
    by_seed = sample_ode(policy, embeds[0], SCHEDULE, seeds=SEEDS, latent_shape=SHAPE)
    by_noise = sample_ode(policy, embeds[0], SCHEDULE, noises=initial_noise(SEEDS, SHAPE))
    assert by_seed.shape == (5, *SHAPE)
    assert by_seed.dtype == torch.float32
    assert torch.equal(by_seed, by_noise)


def test_the_linear_flow_has_its_closed_form(linear_policy, embeds):
    """x' = x + dt ((1 + sigma) x - text), step by step in float64."""
    x = initial_noise(SEEDS, SHAPE).double()
    text = embeds[0].double().mean(dim=(1, 2)).reshape(-1, 1, 1, 1, 1)
    for sigma, sigma_next in SCHEDULE.steps():
        x = x + (sigma_next - sigma) * ((1 + sigma) * x - text)
    latents = sample_ode(linear_policy, embeds[0], SCHEDULE, seeds=SEEDS, latent_shape=SHAPE)
    torch.testing.assert_close(latents.double(), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("micro_batch", [1, 2, 5, 9])
def test_every_sample_keeps_its_own_prompt_in_micro_batches(linear_policy, embeds, micro_batch):
    whole = sample_ode(linear_policy, embeds[0], SCHEDULE, seeds=SEEDS, latent_shape=SHAPE)
    parts = sample_ode(
        linear_policy, embeds[0], SCHEDULE, seeds=SEEDS, latent_shape=SHAPE, micro_batch=micro_batch
    )
    assert torch.equal(whole, parts)


def test_the_given_noises_are_left_as_they_are(linear_policy, embeds):
    noises = initial_noise(SEEDS, SHAPE)
    copy = noises.clone()
    sample_ode(linear_policy, embeds[0], SCHEDULE, noises=noises)
    assert torch.equal(noises, copy)


def test_guidance_and_progress(linear_policy, embeds):
    seen = []
    plain = sample_ode(linear_policy, embeds[0], SCHEDULE, seeds=SEEDS, latent_shape=SHAPE)
    guided = sample_ode(
        linear_policy,
        embeds[0],
        SCHEDULE,
        seeds=SEEDS,
        latent_shape=SHAPE,
        cfg_scale=3.0,
        negative_prompt_embeds=embeds[1],
        micro_batch=2,
        on_step=lambda done, total: seen.append((done, total)),
    )
    assert not torch.allclose(guided, plain)
    assert seen == [(i, 12) for i in range(1, 13)]


def test_initial_noise_is_standard_normal_and_its_own_for_each_seed():
    noise = initial_noise([3, 4], (4, 8, 20, 20))
    assert torch.equal(initial_noise([4], (4, 8, 20, 20))[0], noise[1])
    torch.testing.assert_close(noise.flatten(1).mean(dim=1), torch.zeros(2), rtol=0.0, atol=4 / 113)
    torch.testing.assert_close(noise.flatten(1).std(dim=1), torch.ones(2), rtol=0.0, atol=4 / 160)
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 4 / 113


def test_bad_arguments_are_refused(linear_policy, embeds):
    noises = initial_noise(SEEDS, SHAPE)
    with pytest.raises(ValueError, match="either seeds and latent_shape, or noises"):
        sample_ode(linear_policy, embeds[0], SCHEDULE, seeds=SEEDS)
    with pytest.raises(ValueError, match="one or the other"):
        sample_ode(linear_policy, embeds[0], SCHEDULE, noises=noises, seeds=SEEDS)
    with pytest.raises(ValueError, match="4 noises for 5 prompts"):
        sample_ode(linear_policy, embeds[0], SCHEDULE, noises=noises[:4])
    with pytest.raises(ValueError, match=r"expected one per sample, \[N, L, D\]"):
        sample_ode(linear_policy, embeds[0][0], SCHEDULE, noises=noises)
