"""The leash outside the window: how far a policy is from its base model there."""

import torch

from vggrpo.flow import SigmaSchedule
from vggrpo.rollout import off_window_distance, sample_group

SHAPE = (4, 2, 4, 6)
SIGMA = 0.25


def group_of(policy):
    embeds = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    schedule = SigmaSchedule.linear(4)
    return sample_group(policy, embeds, schedule, seeds=[5, 6, 7], latent_shape=SHAPE, window=(0, 2))


def test_it_is_zero_for_the_base_model(linear_policy):
    group = group_of(linear_policy)
    assert off_window_distance(linear_policy, group, SIGMA) == 0


def test_it_is_the_squared_change_of_the_velocity_and_pulls_the_lora_back(linear_policy):
    group = group_of(linear_policy)
    with torch.no_grad():
        linear_policy.lora.fill_(0.3)
    distance = off_window_distance(linear_policy, group, SIGMA)
    # The velocity changes by lora * x, so the distance is .09 E[x^2].
    clean = group.latents
    expected_scale = (1 - SIGMA) ** 2 * clean.square().mean() + SIGMA**2
    torch.testing.assert_close(distance / 0.09, expected_scale, rtol=0.2, atol=0.0)
    distance.backward()
    torch.testing.assert_close(linear_policy.lora.grad, 2 * distance.detach() / 0.3)


def test_members_have_noises_of_their_own_whatever_the_batch(linear_policy):
    group = group_of(linear_policy)
    with torch.no_grad():
        linear_policy.lora.fill_(0.3)
    each = [off_window_distance(linear_policy, group, SIGMA, slice(k, k + 1)) for k in range(3)]
    torch.testing.assert_close(torch.stack(each).mean(), off_window_distance(linear_policy, group, SIGMA))
    assert len({value.item() for value in each}) == 3
