"""Stochastic samples are the rollouts' own, one prompt each."""

import pytest
import torch

from vggrpo.flow import SigmaSchedule
from vggrpo.rollout import sample_group, sample_ode, sample_sde

SHAPE = (4, 2, 4, 6)
SEEDS = [1, 2, 3, 4, 5]
SCHEDULE = SigmaSchedule.linear(4)


@pytest.mark.parametrize("transition", ["flow_sde", "dance_sde", "cps"])
@pytest.mark.parametrize("window", [None, (1, 2)])
def test_a_sample_is_the_member_of_a_group_with_its_prompt_and_seed(
    linear_policy, embeds, transition, window
):
    options = {"transition": transition, "noise_scale": 0.5, "window": window}
    samples = sample_sde(
        linear_policy, embeds[0], SCHEDULE, seeds=SEEDS, latent_shape=SHAPE, micro_batch=2, **options
    )
    for sample, prompt, seed in zip(samples, embeds[0], SEEDS, strict=True):
        group = sample_group(linear_policy, prompt, SCHEDULE, [seed], SHAPE, **options)
        assert torch.equal(sample, group.latents[0])


def test_without_stochastic_steps_it_is_the_ode(policy, embeds):
    arguments = {"seeds": SEEDS, "latent_shape": SHAPE}
    stochastic = sample_sde(policy, embeds[0], SCHEDULE, window=(0, 0), **arguments)
    assert torch.equal(stochastic, sample_ode(policy, embeds[0], SCHEDULE, **arguments))


def test_guidance_and_progress_reach_every_step(linear_policy, embeds):
    seen = []
    guided = sample_sde(
        linear_policy,
        embeds[0],
        SCHEDULE,
        seeds=SEEDS,
        latent_shape=SHAPE,
        cfg_scale=3.0,
        negative_prompt_embeds=embeds[1],
        micro_batch=3,
        on_step=lambda done, total: seen.append((done, total)),
    )
    plain = sample_sde(linear_policy, embeds[0], SCHEDULE, seeds=SEEDS, latent_shape=SHAPE)
    assert seen == [(done, 8) for done in range(1, 9)]
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(guided, plain, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": SEEDS[:2]}, r"expected one per seed, \[2, L, D\]"),
        ({"window": (2, 2)}, "the last one leads to sigma 0"),
        ({"transition": "ddim"}, "transition is 'ddim'"),
        ({"noise_scale": 0.0}, "noise_scale is 0.0, but the window has 3 stochastic steps"),
        ({"cfg_scale": 2.0}, "needs negative_prompt_embeds"),
    ],
)
def test_arguments_that_do_not_fit_are_named(linear_policy, embeds, changes, message):
    arguments = {"seeds": SEEDS, "latent_shape": SHAPE} | changes
    with pytest.raises(ValueError, match=message):
        sample_sde(linear_policy, embeds[0], SCHEDULE, **arguments)
