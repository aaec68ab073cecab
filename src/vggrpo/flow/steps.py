"""Steps of the rectified flow: the deterministic ODE step and three stochastic transitions of one interface.

    x_sigma = (1 - sigma) x0 + sigma noise,   velocity = noise - x0,   dt = sigma_next - sigma < 0

Every stochastic transition is the ODE step plus a correction along the predicted noise, written so that
`noise_scale` 0 gives `ode_step` bit for bit. A step to sigma 0 is deterministic for every kind: its noise
would stay in the sample.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from vggrpo.flow.transition import Transition, per_sample


class TransitionKind(Protocol):
    """What `TRANSITIONS` holds: (x, velocity, sigma, sigma_next, noise_scale) to a `Transition`."""

    def __call__(
        self,
        x: Tensor,
        velocity: Tensor,
        sigma: float | Tensor,
        sigma_next: float | Tensor,
        noise_scale: float = ...,
    ) -> Transition: ...


def predict_x0(x: Tensor, velocity: Tensor, sigma: float | Tensor) -> Tensor:
    """The clean sample that a velocity points to, x - sigma * velocity, [B, ...].

    `sigma` is a number or [B]. Computed in float32 at least.
    """
    x, velocity = _promote(x, velocity)
    return x - per_sample(_levels("sigma", sigma, len(x)), x) * velocity


def predict_noise(x: Tensor, velocity: Tensor, sigma: float | Tensor) -> Tensor:
    """The noise that a velocity comes from, x + (1 - sigma) * velocity, [B, ...].

    `sigma` is a number or [B]. Computed in float32 at least.
    """
    x, velocity = _promote(x, velocity)
    return x + per_sample(1.0 - _levels("sigma", sigma, len(x)), x) * velocity


def ode_step(x: Tensor, velocity: Tensor, sigma: float | Tensor, sigma_next: float | Tensor) -> Tensor:
    """Euler step x + dt * velocity from `sigma` to `sigma_next`.

    Args:
        x: latents at `sigma`, [B, ...].
        velocity: noise - x0 as the model predicts it there, [B, ...].
        sigma: noise level in (0, 1], a number or [B].
        sigma_next: smaller noise level, a number or [B].

    Returns:
        Latents at `sigma_next`, float32 (float64 if an input is float64).

    Raises:
        ValueError: if shapes differ or the levels are not 0 <= sigma_next < sigma <= 1.
    """
    x, velocity = _promote(x, velocity)
    t, t_next = _step_levels(sigma, sigma_next, len(x))
    return _euler(x, velocity, t, t_next)


def flow_sde(
    x: Tensor,
    velocity: Tensor,
    sigma: float | Tensor,
    sigma_next: float | Tensor,
    noise_scale: float = 0.7,
) -> Transition:
    """The SDE with the flow's marginals and s_t = a sqrt(t / (1 - t)) (Flow-GRPO, arXiv 2505.05470).

        mean = x + [ v + s_t^2 / (2t) (x + (1 - t) v) ] dt,   std = s_t sqrt(-dt),   a = noise_scale

    As the steps shrink, the states have exactly the ODE's marginal at every level, for any a. Near t = 1 the
    coefficient diverges: where 1 - t < (t - sigma_next) / 4, it is computed with 1 - sigma_next in place of
    1 - t, so that std never exceeds 2a on any grid (and a on a first step that starts at pure noise).

    Arguments, result and errors as in `ode_step`; `noise_scale` must be a finite number >= 0.
    """
    _check_noise_scale(noise_scale)
    x, velocity = _promote(x, velocity)
    t, t_next = _step_levels(sigma, sigma_next, len(x))
    one_minus_t = torch.where(1.0 - t < (t - t_next) / 4.0, 1.0 - t_next, 1.0 - t)
    return _score_sde(x, velocity, t, t_next, diffusion_coef=noise_scale * torch.sqrt(t / one_minus_t))


def dance_sde(
    x: Tensor,
    velocity: Tensor,
    sigma: float | Tensor,
    sigma_next: float | Tensor,
    noise_scale: float = 0.3,
) -> Transition:
    """The same SDE with a constant diffusion s_t = eta = noise_scale (DanceGRPO, arXiv 2505.07818).

        mean = x + [ v + eta^2 / (2t) (x + (1 - t) v) ] dt,   std = eta sqrt(-dt)

    It too keeps the ODE's marginals as the steps shrink, but less robustly: a step adds noise of variance
    eta^2 |dt|, which at low noise exceeds the t^2 that the marginal itself has around each clean sample.
    Where the data are concentrated, the last states are too noisy once eta^2 |dt| > t^2 (on an even grid:
    more than 1 / eta^2 steps), and with many steps Euler-Maruyama is unstable there.

    Arguments, result and errors as in `ode_step`; `noise_scale` must be a finite number >= 0.
    """
    _check_noise_scale(noise_scale)
    x, velocity = _promote(x, velocity)
    t, t_next = _step_levels(sigma, sigma_next, len(x))
    return _score_sde(x, velocity, t, t_next, diffusion_coef=torch.full_like(t, noise_scale))


def cps(
    x: Tensor,
    velocity: Tensor,
    sigma: float | Tensor,
    sigma_next: float | Tensor,
    noise_scale: float = 0.8,
) -> Transition:
    """Coefficients-preserving sampling (Flow-CPS, arXiv 2509.05952): fresh noise for a part of the predicted.

        std = sigma_next sin(a pi/2),   mean = (1 - sigma_next) x0 + sqrt(sigma_next^2 - std^2) noise

    with a = noise_scale and the predictions x0 and noise at x. The next state holds data and noise with the
    flow's coefficients, (1 - sigma_next) and sigma_next, at any number of steps: the marginals are exact
    where the prediction is (data that is a single point), and the mean is the ODE's wherever the velocity
    is linear in x. Otherwise the variance is smaller than the ODE's, because x0 is a posterior mean, and
    this does not vanish as the steps shrink: for Gaussian data and a marginal of variance V it tends to V
    (1 + c) / (2 - (1 - c) t^2 / V) with c = cos(a pi/2).

    Arguments, result and errors as in `ode_step`; `noise_scale` must be in [0, 1].
    """
    _check_noise_scale(noise_scale, maximum=1.0)
    x, velocity = _promote(x, velocity)
    t, t_next = _step_levels(sigma, sigma_next, len(x))
    angle = noise_scale * math.pi / 2.0
    replaced = t_next * 2.0 * math.sin(angle / 2.0) ** 2  # sigma_next (1 - cos), exactly 0 at noise_scale 0
    noise = predict_noise(x, velocity, t)
    mean = _euler(x, velocity, t, t_next) - per_sample(replaced, x) * noise
    return Transition(mean, (t_next * math.sin(angle)).to(device=x.device, dtype=x.dtype))


TRANSITIONS: dict[str, TransitionKind] = {"flow_sde": flow_sde, "dance_sde": dance_sde, "cps": cps}
"""The stochastic transitions by the name that settings use."""


def _euler(x: Tensor, drift: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    return x + per_sample(t_next - t, x) * drift


def _score_sde(x: Tensor, velocity: Tensor, t: Tensor, t_next: Tensor, diffusion_coef: Tensor) -> Transition:
    """Euler-Maruyama step of dx = [ v - s^2 / 2 * score ] dt + s dw, where score = -(x + (1 - t) v) / t."""
    s = torch.where(t_next > 0.0, diffusion_coef, 0.0)
    drift = velocity + per_sample(s.square() / (2.0 * t), x) * predict_noise(x, velocity, t)
    std = s * torch.sqrt(t - t_next)
    return Transition(_euler(x, drift, t, t_next), std.to(device=x.device, dtype=x.dtype))


def _promote(x: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors in their common dtype, float32 at least."""
    if x.ndim < 2 or velocity.shape != x.shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and velocity {tuple(velocity.shape)}, expected the same [B, ...]"
        )
    if not (x.is_floating_point() and velocity.is_floating_point()):
        raise TypeError(f"x is {x.dtype} and velocity {velocity.dtype}, expected floating-point tensors")
    dtype = torch.promote_types(torch.promote_types(x.dtype, velocity.dtype), torch.float32)
    return x.to(dtype), velocity.to(dtype)


def _levels(name: str, sigma: float | Tensor, batch_size: int) -> Tensor:
    """A noise level as [B] in float64 on the CPU, where all coefficients are computed."""
    levels = torch.as_tensor(sigma, dtype=torch.float64, device="cpu").detach()
    if levels.ndim > 1 or (levels.ndim == 1 and len(levels) != batch_size):
        raise ValueError(
            f"{name} has shape {tuple(levels.shape)}, expected a number or one per sample, [{batch_size}]"
        )
    if not bool(((levels >= 0.0) & (levels <= 1.0)).all()):
        raise ValueError(
            f"{name} is {levels.tolist()}, expected noise levels in [0, 1], where 1 is pure noise"
        )
    return levels.expand(batch_size)


def _step_levels(sigma: float | Tensor, sigma_next: float | Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    t, t_next = _levels("sigma", sigma, batch_size), _levels("sigma_next", sigma_next, batch_size)
    if not bool((t_next < t).all()):
        raise ValueError(
            "sigma_next must be below sigma (denoising goes down), "
            f"but sigma is {t.tolist()} and sigma_next {t_next.tolist()}"
        )
    return t, t_next


def _check_noise_scale(noise_scale: float, maximum: float = math.inf) -> None:
    if not (math.isfinite(noise_scale) and 0.0 <= noise_scale <= maximum):
        expected = "a finite number >= 0" if maximum == math.inf else f"a number in [0, {maximum:g}]"
        raise ValueError(f"noise_scale is {noise_scale}, expected {expected}")
