"""The states of the stochastic samplers against a flow whose marginals are known.

Data N(m, c^2) under the rectified flow: x_t has mean (1 - t) m and variance V_t = (1 - t)^2 c^2 + t^2, and
the velocity E[noise - x0 | x_t] is affine in x_t. Each transition is then affine too, so its mean and
variance propagate exactly.
"""

import math

import pytest
import torch
from torch import Tensor

from vggrpo.flow import TRANSITIONS, SigmaSchedule, ode_step

DATA_MEAN, DATA_STD = 1.5, 0.6


def marginal_variance(t: float, data_std: float = DATA_STD) -> float:
    return (1 - t) ** 2 * data_std**2 + t**2


def velocity(x: Tensor, t: float, data_std: float = DATA_STD) -> Tensor:
    centred = x - (1 - t) * DATA_MEAN
    noise = t / marginal_variance(t, data_std) * centred
    x0 = DATA_MEAN + (1 - t) * data_std**2 / marginal_variance(t, data_std) * centred
    return noise - x0


def propagate(kind: str, noise_scale: float, schedule: SigmaSchedule, data_std: float = DATA_STD):
    """(sigma_next, mean, variance) after every step, from N(0, 1), without sampling."""
    probe = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    mean, variance, moments = 0.0, 1.0, []
    for t, t_next in schedule.steps():
        step = TRANSITIONS[kind](probe, velocity(probe, t, data_std), t, t_next, noise_scale)
        offset, end = (float(value) for value in step.mean.flatten())
        factor = end - offset
        mean = factor * mean + offset
        variance = factor**2 * variance + float(step.std[0]) ** 2
        moments.append((t_next, mean, variance))
    return moments


def sample(kind: str | None, noise_scale: float, schedule: SigmaSchedule, samples: int, stop: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, samples), generator=generator)
    for t, t_next in list(schedule.steps())[:stop]:
        v = velocity(x, t)
        if kind is None:
            x = ode_step(x, v, t, t_next)
        else:
            x = TRANSITIONS[kind](x, v, t, t_next, noise_scale).sample(generator)
    return x.double()


@pytest.mark.parametrize(("kind", "noise_scale"), [("flow_sde", 0.7), ("flow_sde", 1.0), ("dance_sde", 0.3)])
@pytest.mark.parametrize("stop", [1000, 2000], ids=["halfway", "end"])
def test_sde_marginals_equal_ode_marginals_within_monte_carlo_error(kind, noise_scale, stop):
    schedule, samples = SigmaSchedule.linear(2000), 20000
    sigma = float(schedule.sigmas[stop])
    variance = marginal_variance(sigma)
    mean_error = math.sqrt(variance / samples)
    variance_error = variance * math.sqrt(2 / samples)
    for x in (sample(kind, noise_scale, schedule, samples, stop), sample(None, 0.0, schedule, samples, stop)):
        assert abs(float(x.mean()) - (1 - sigma) * DATA_MEAN) < 4 * mean_error
        assert abs(float(x.var()) - variance) < 4 * variance_error


def test_the_monte_carlo_error_would_show_a_missing_drift_correction():
    """Without the drift term, the added noise lifts the variance far beyond the tolerance."""
    schedule, samples = SigmaSchedule.linear(2000), 20000
    variance = 1.0
    for t, t_next in list(schedule.steps())[:1000]:
        probe = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        moved = ode_step(probe, velocity(probe, t), t, t_next).flatten()
        std = TRANSITIONS["flow_sde"](probe, probe, t, t_next, 0.7).std[0]
        variance = float((moved[1] - moved[0]) ** 2) * variance + float(std) ** 2
    expected = marginal_variance(0.5)
    assert abs(variance - expected) > 100 * expected * math.sqrt(2 / samples)


@pytest.mark.parametrize(("kind", "noise_scale"), [("flow_sde", 0.7), ("flow_sde", 1.0), ("dance_sde", 0.3)])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_discretisation_error_vanishes_with_the_step(kind, noise_scale, shift):
    errors = []
    for num_steps in (100, 1000, 4000):
        moments = propagate(kind, noise_scale, SigmaSchedule.linear(num_steps, shift))[num_steps // 4 :]
        errors.append(max(abs(variance / marginal_variance(t) - 1) for t, _, variance in moments))
        assert all(mean == pytest.approx((1 - t) * DATA_MEAN, abs=1e-9) for t, mean, _ in moments)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


@pytest.mark.parametrize("num_steps", [4, 10, 50])
@pytest.mark.parametrize("noise_scale", [0.3, 0.8, 1.0])
def test_cps_is_exact_for_a_single_point_at_any_number_of_steps(num_steps, noise_scale):
    for t, mean, variance in propagate("cps", noise_scale, SigmaSchedule.linear(num_steps), data_std=0.0):
        assert mean == pytest.approx((1 - t) * DATA_MEAN, abs=1e-12)
        assert variance == pytest.approx(t**2, abs=1e-12)


@pytest.mark.parametrize("noise_scale", [0.3, 0.8])
def test_cps_variance_tends_to_its_own_limit_below_the_marginal(noise_scale):
    num_steps = 4000
    cosine = math.cos(noise_scale * math.pi / 2)
    for t, mean, variance in propagate("cps", noise_scale, SigmaSchedule.linear(num_steps))[400:3600:400]:
        marginal = marginal_variance(t)
        limit = marginal * (1 + cosine) / (2 - (1 - cosine) * t**2 / marginal)
        assert mean == pytest.approx((1 - t) * DATA_MEAN, abs=1e-9)
        assert variance == pytest.approx(limit, rel=5e-3)
        assert variance < marginal


def test_dance_sde_leaves_concentrated_data_too_noisy_on_a_fine_grid():
    def excess(kind, noise_scale, num_steps):
        sigma, _, variance = propagate(kind, noise_scale, SigmaSchedule.linear(num_steps), data_std=0.0)[-2]
        return variance / sigma**2

    assert excess("dance_sde", 0.3, 5) < 1.3
    assert excess("dance_sde", 0.3, 50) > 4
    assert excess("dance_sde", 0.3, 200) > 50
    assert excess("flow_sde", 0.7, 50) < 2
    assert excess("flow_sde", 0.7, 200) < 2
