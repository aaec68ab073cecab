import math

import pytest
import torch

from vggrpo.flow import TRANSITIONS, cps, dance_sde, flow_sde, ode_step, predict_noise, predict_x0

STEPS = [(1.0, 0.9), (0.999999, 0.85), (0.7, 0.6), (0.25, 0.1), (0.1, 0.0)]


def state(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 4, 2, 5, 6)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))


def test_predictions_invert_the_interpolation():
    x0, noise = state(dtype=torch.float64)
    sigma = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    s = sigma.reshape(3, 1, 1, 1, 1)
    x, velocity = (1 - s) * x0 + s * noise, noise - x0
    torch.testing.assert_close(predict_x0(x, velocity, sigma), x0)
    torch.testing.assert_close(predict_noise(x, velocity, sigma), noise)


def test_ode_step_follows_the_straight_line_of_a_known_pair():
    x0, noise = state(dtype=torch.float64)
    x = 0.4 * x0 + 0.6 * noise
    torch.testing.assert_close(ode_step(x, noise - x0, 0.6, 0.35), 0.65 * x0 + 0.35 * noise)
    torch.testing.assert_close(ode_step(x, noise - x0, 0.6, 0.0), x0)


@pytest.mark.parametrize("kind", TRANSITIONS)
@pytest.mark.parametrize(("sigma", "sigma_next"), STEPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_scale_zero_is_the_ode_bit_for_bit(kind, sigma, sigma_next, dtype):
    x, velocity = (tensor.to(dtype) for tensor in state())
    transition = TRANSITIONS[kind](x, velocity, sigma, sigma_next, 0.0)
    expected = ode_step(x, velocity, sigma, sigma_next)
    assert expected.dtype == torch.float32
    assert torch.equal(transition.mean, expected)
    assert torch.equal(transition.std, torch.zeros(3))
    assert torch.equal(transition.sample(torch.Generator().manual_seed(0)), expected)


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_the_step_to_zero_is_the_ode_bit_for_bit(kind):
    x, velocity = state()
    transition = TRANSITIONS[kind](x, velocity, 0.1, 0.0)
    assert torch.equal(transition.mean, ode_step(x, velocity, 0.1, 0.0))
    assert torch.equal(transition.std, torch.zeros(3))


def test_flow_sde_is_the_published_formula():
    x, v = state(dtype=torch.float64)
    t, t_next, a = 0.7, 0.6, 0.7
    s, dt = a * math.sqrt(t / (1 - t)), t_next - t
    mean = x * (1 + s**2 / (2 * t) * dt) + v * (1 + s**2 * (1 - t) / (2 * t)) * dt
    transition = flow_sde(x, v, t, t_next, a)
    torch.testing.assert_close(transition.mean, mean)
    torch.testing.assert_close(transition.std, torch.full((3,), s * math.sqrt(-dt), dtype=torch.float64))


def test_dance_sde_is_the_published_formula():
    x, v = state(dtype=torch.float64)
    t, t_next, eta = 0.7, 0.6, 0.3
    x0, dt = x - t * v, t_next - t
    mean = x + (v + 0.5 * eta**2 * (x - (1 - t) * x0) / t**2) * dt
    transition = dance_sde(x, v, t, t_next, eta)
    torch.testing.assert_close(transition.mean, mean)
    torch.testing.assert_close(transition.std, torch.full((3,), eta * math.sqrt(-dt), dtype=torch.float64))


def test_cps_is_the_published_formula():
    x, v = state(dtype=torch.float64)
    t, t_next, a = 0.7, 0.6, 0.8
    std = t_next * math.sin(a * math.pi / 2)
    mean = (1 - t_next) * (x - t * v) + math.sqrt(t_next**2 - std**2) * (x + (1 - t) * v)
    transition = cps(x, v, t, t_next, a)
    torch.testing.assert_close(transition.mean, mean)
    torch.testing.assert_close(transition.std, torch.full((3,), std, dtype=torch.float64))


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_levels_per_sample_equal_one_call_per_sample(kind):
    x, v = state()
    sigma, sigma_next = torch.tensor([1.0, 0.7, 0.2]), torch.tensor([0.8, 0.5, 0.0])
    together = TRANSITIONS[kind](x, v, sigma, sigma_next)
    for i in range(3):
        alone = TRANSITIONS[kind](x[i : i + 1], v[i : i + 1], float(sigma[i]), float(sigma_next[i]))
        assert torch.equal(together.mean[i : i + 1], alone.mean)
        assert torch.equal(together.std[i : i + 1], alone.std)


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_the_mean_carries_the_gradient_of_the_velocity(kind):
    x, v = state(dtype=torch.float64)
    x, v = x[:1, :1, :1, :2, :2].clone(), v[:1, :1, :1, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda velocity: TRANSITIONS[kind](x, velocity, 0.7, 0.5).mean, v)


def test_low_precision_inputs_are_computed_in_float32():
    x, v = state()
    low = flow_sde(x.bfloat16(), v.bfloat16(), 0.7, 0.6)
    exact = flow_sde(x.bfloat16().float(), v.bfloat16().float(), 0.7, 0.6)
    assert low.mean.dtype == low.std.dtype == torch.float32
    assert torch.equal(low.mean, exact.mean)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sigma_next": 0.7}, "sigma_next must be below sigma"),
        ({"sigma_next": 0.9}, "sigma_next must be below sigma"),
        ({"sigma": 1.2}, r"sigma is 1\.2"),
        ({"sigma": 700.0}, r"noise levels in \[0, 1\]"),
        ({"sigma_next": -0.1}, r"sigma_next is -0\.1"),
        ({"sigma": float("nan")}, "sigma is nan"),
        ({"sigma": torch.tensor([0.7, 0.7])}, r"one per sample, \[3\]"),
        ({"noise_scale": -0.1}, r"noise_scale is -0\.1"),
        ({"noise_scale": float("inf")}, "noise_scale is inf"),
    ],
)
@pytest.mark.parametrize("kind", TRANSITIONS)
def test_bad_arguments_are_refused(kind, kwargs, message):
    x, v = state()
    with pytest.raises(ValueError, match=message):
        TRANSITIONS[kind](x, v, **{"sigma": 0.7, "sigma_next": 0.5, **kwargs})


def test_bad_states_are_refused():
    x, v = state()
    with pytest.raises(ValueError, match="expected the same"):
        ode_step(x, v[:, :1], 0.7, 0.5)
    with pytest.raises(TypeError, match=r"torch\.int64"):
        ode_step(x.long(), v.long(), 0.7, 0.5)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        cps(x, v, 0.7, 0.5, noise_scale=1.5)
