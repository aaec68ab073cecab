"""The first step on grids that start at or near pure noise, where s_t = a sqrt(t / (1 - t)) diverges."""

import math

import pytest
import torch

from vggrpo.flow import TRANSITIONS, SigmaSchedule, flow_sde, ode_step, predict_noise

STARTS = [1.0, 1.0 - 1e-9, 0.999999, 0.999]


def pair(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn((2, 4, 3, 4), generator=generator) for _ in range(2))
    return x0, noise


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("num_steps", [4, 10, 50])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_first_step_is_finite_bounded_and_close_to_the_ode(start, num_steps, shift):
    x0, noise = pair()
    sigma, sigma_next = SigmaSchedule.linear(num_steps, shift=shift, sigma_max=start).step(0)
    x, velocity, a = (1 - sigma) * x0 + sigma * noise, noise - x0, 0.7
    step = flow_sde(x, velocity, sigma, sigma_next, a)
    assert torch.isfinite(step.mean).all()
    assert 0.0 < float(step.std[0]) <= 2 * a
    # The mean leaves the ODE along the predicted noise, by std^2 / (2 sigma) of it.
    distance = (step.mean - ode_step(x, velocity, sigma, sigma_next)).norm()
    share = float(step.std[0]) ** 2 / (2 * sigma)
    assert float(distance) == pytest.approx(share * float(predict_noise(x, velocity, sigma).norm()), rel=1e-4)
    assert share <= 2 * a**2 / sigma


@pytest.mark.parametrize("sigma_next", [0.9, 0.98])
def test_starts_near_one_behave_as_the_start_at_one(sigma_next):
    x0, noise = pair()
    reference = flow_sde(noise, noise - x0, 1.0, sigma_next)
    for start in STARTS[1:]:
        step = flow_sde((1 - start) * x0 + start * noise, noise - x0, start, sigma_next)
        torch.testing.assert_close(step.std, reference.std, rtol=0.06, atol=0.0)
        torch.testing.assert_close(step.mean, reference.mean, rtol=0.0, atol=0.04)


def test_the_unguarded_formula_at_999_is_what_the_guard_prevents():
    """At sigma .999 over a step of .1 the bare formula has a std of 7 and multiplies the state by -23."""
    sigma, sigma_next, a = 0.999, 0.899, 0.7
    unguarded = a * math.sqrt(sigma / (1 - sigma) * (sigma - sigma_next))
    assert unguarded > 6.9
    step = flow_sde(torch.ones(1, 4), torch.zeros(1, 4), sigma, sigma_next, a)
    assert float(step.std[0]) == pytest.approx(a * math.sqrt(sigma / (1 - sigma_next) * 0.1))
    assert (step.mean > 0.7).all()


def test_the_guard_sets_in_at_a_quarter_of_the_step():
    """1 - t is used as soon as it reaches (t - sigma_next) / 4."""
    x = torch.zeros(1, 4)
    step_size = 0.1
    for one_minus_t, denominator in ((0.026, 0.026), (0.024, 0.124)):
        t = 1 - one_minus_t
        std = flow_sde(x, x, t, t - step_size, noise_scale=1.0).std
        assert float(std[0]) == pytest.approx(math.sqrt(t / denominator * step_size), rel=1e-5)


def test_std_never_exceeds_twice_the_noise_scale():
    t = torch.linspace(0.001, 1.0, 400, dtype=torch.float64).repeat_interleave(50)
    t_next = t * torch.linspace(0.0, 0.999, 50, dtype=torch.float64).repeat(400)
    x = torch.zeros(len(t), 1, dtype=torch.float64)
    std = flow_sde(x, x, t, t_next, noise_scale=0.7).std
    assert torch.isfinite(std).all()
    assert float(std.max()) <= 1.4


@pytest.mark.parametrize("kind", TRANSITIONS)
@pytest.mark.parametrize("start", STARTS)
def test_every_kind_is_finite_at_the_first_step(kind, start):
    x0, noise = pair()
    step = TRANSITIONS[kind](noise, noise - x0, start, 0.9)
    assert torch.isfinite(step.mean).all()
    assert 0.0 < float(step.std[0]) < 1.5
