"""Log-probabilities and KL against torch.distributions in float64."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vggrpo.flow import TRANSITIONS


def step(kind, seed=0, dtype=torch.float64, sigma=0.7, sigma_next=0.55):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((3, 4, 2, 5, 6), generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    velocity = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return TRANSITIONS[kind](x.to(dtype), velocity.to(dtype), sigma, sigma_next)


def normal(transition):
    return Normal(transition.mean.double(), transition.std.double().reshape(-1, 1, 1, 1, 1))


def mean_over_elements(values):
    return values.flatten(1).mean(dim=1)


@pytest.mark.parametrize("kind", TRANSITIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_log_prob_is_the_mean_of_the_gaussian_log_density(kind, dtype, tolerance):
    transition = step(kind, dtype=dtype)
    x_next = transition.sample(torch.Generator().manual_seed(1))
    log_prob = transition.log_prob(x_next)
    assert log_prob.dtype == dtype
    expected = mean_over_elements(normal(transition).log_prob(x_next.double()))
    torch.testing.assert_close(log_prob.double(), expected, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("kind", TRANSITIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_kl_is_the_mean_of_the_gaussian_kl(kind, dtype, tolerance):
    policy, reference = step(kind, 0, dtype), step(kind, 1, dtype)
    expected = mean_over_elements(kl_divergence(normal(policy), normal(reference)))
    assert (expected > 0.01).all()
    torch.testing.assert_close(policy.kl(reference).double(), expected, rtol=tolerance, atol=0.0)


def test_levels_per_sample_are_scored_per_sample():
    sigma, sigma_next = torch.tensor([0.9, 0.6, 0.3]), torch.tensor([0.7, 0.5, 0.1])
    transition = step("flow_sde", sigma=sigma, sigma_next=sigma_next)
    assert len(set(transition.std.tolist())) == 3
    x_next = transition.sample(torch.Generator().manual_seed(1))
    expected = mean_over_elements(normal(transition).log_prob(x_next))
    torch.testing.assert_close(transition.log_prob(x_next), expected)


def test_gradients_of_log_prob_and_kl():
    generator = torch.Generator().manual_seed(0)
    x, velocity, reference, x_next = (
        torch.randn((2, 1, 1, 2, 2), generator=generator, dtype=torch.float64) for _ in range(4)
    )
    velocity.requires_grad_()

    def scores(v):
        transition = TRANSITIONS["flow_sde"](x, v, 0.7, 0.5)
        return transition.log_prob(x_next), transition.kl(TRANSITIONS["flow_sde"](x, reference, 0.7, 0.5))

    assert torch.autograd.gradcheck(scores, velocity)


def test_the_expected_log_prob_of_a_draw_is_minus_the_entropy():
    transition = TRANSITIONS["flow_sde"](torch.zeros(1, 100000), torch.zeros(1, 100000), 0.7, 0.5)
    log_prob = transition.log_prob(transition.sample(torch.Generator().manual_seed(0)))
    entropy = normal_entropy(float(transition.std[0]))
    assert float(log_prob[0]) == pytest.approx(-entropy, abs=4 / (2 * 100000) ** 0.5)


def normal_entropy(std):
    return float(Normal(0.0, std).entropy())
