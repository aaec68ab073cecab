"""Reward guidance: at a few steps of the sampling, the velocity is turned towards a higher reward.

    v~ = v - scale * t / (1 - t) * grad_{z_t} r( x0_pred ),   x0_pred = z_t - t v

A step adds dt v~ with dt < 0, so the minus sign ascends r.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from vggrpo.flow import SigmaSchedule, predict_x0
from vggrpo.rollout.latent_reward import LatentScore

Through = Literal["x0_pred", "denoiser"]

MIN_SIGNAL = 0.02
"""Least 1 - t in t / (1 - t), which has no bound at pure noise: the factor stays below 50."""


@dataclass(frozen=True, eq=False)
class Correction:
    """What guidance adds to the velocity of B samples at one step."""

    velocity: Tensor
    """[B, ...]: v~ - v."""
    value: Tensor
    """[B]: the reward of x0_pred before the step; NaN where a reward failed."""
    ratio: Tensor
    """[B]: the length of the correction over that of the velocity, before the cap."""


@dataclass(frozen=True)
class RewardGuidance:
    """When to guide, how strongly, and towards what.

    Raises:
        ValueError: if a setting is out of range.
    """

    reward: Callable[[Tensor], LatentScore]
    """Clean latents [B, C, T, H, W] to their score: a `LatentReward`, or anything differentiable."""
    scale: float
    """Factor of the gradient; 0 guides nowhere. It is not `cfg_scale`."""
    interval: int = 20
    """Steps interval, 2 * interval, ... are guided, counted from 0: 20 and 40 of 50."""
    start_sigma: float = 1.0
    """No step at a higher noise level is guided."""
    stop_sigma: float = 0.0
    """No step at a lower noise level is guided."""
    through: Through = "x0_pred"
    """"x0_pred" holds the velocity constant in the gradient; "denoiser" takes the gradient through the
    denoiser too, which costs one more of its evaluations and their memory."""
    norm_cap: float | None = 1.0
    """Longest correction, as a share of the velocity's length, sample by sample; None is no limit."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise ValueError(f"scale is {self.scale}, expected a finite number >= 0")
        if self.interval < 1:
            raise ValueError(f"interval is {self.interval}, expected at least 1")
        if not 0 <= self.stop_sigma <= self.start_sigma <= 1:
            raise ValueError(
                f"start_sigma is {self.start_sigma} and stop_sigma {self.stop_sigma}, expected noise levels "
                "0 <= stop_sigma <= start_sigma <= 1"
            )
        if self.through not in get_args(Through):
            raise ValueError(f"through is {self.through!r}, expected one of {', '.join(get_args(Through))}")
        if self.norm_cap is not None and not self.norm_cap > 0:
            raise ValueError(f"norm_cap is {self.norm_cap}, expected a positive number, or None for no limit")

    def guides(self, index: int, sigma: float) -> bool:
        """Whether step `index`, at noise level `sigma`, is guided."""
        due = index > 0 and index % self.interval == 0
        return self.scale > 0 and due and self.stop_sigma <= sigma <= self.start_sigma

    def steps(self, schedule: SigmaSchedule) -> list[int]:
        """The guided steps of a schedule."""
        return [index for index, (sigma, _) in enumerate(schedule.steps()) if self.guides(index, sigma)]

    def correction(
        self, x: Tensor, velocity: Tensor, sigma: float, field: Callable[[Tensor, float], Tensor]
    ) -> Correction:
        """The change of the velocity at one step.

        A sample whose gradient is not finite, or all of whose rewards failed, gets none.

        Args:
            x: latents at `sigma`, [B, ...].
            velocity: the model's velocity there, [B, ...].
            sigma: noise level in (0, 1].
            field: (latents, sigma) to velocity, differentiable; called for `through` "denoiser" only.

        Raises:
            ValueError: if the reward has no gradient.
        """
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            v = field(z, sigma) if self.through == "denoiser" else velocity.detach()
            score = self.reward(predict_x0(z, v, sigma))
            if not score.ascent.requires_grad:
                raise ValueError("the guidance's reward has no gradient: make it differentiable in latents")
            (gradient,) = torch.autograd.grad(score.ascent.sum(), z)
        gradient = torch.where(_per_sample(_finite(gradient), gradient), gradient, 0.0)
        change = -self.scale * sigma / max(1.0 - sigma, MIN_SIGNAL) * gradient
        length, allowed = _norm(change), _norm(velocity)
        # Where the velocity is 0 there is no measure of it, and nothing is added.
        ratio = torch.where(allowed > 0, length / allowed, 0.0)
        if self.norm_cap is not None:
            tiny = torch.finfo(length.dtype).tiny
            shrink = (self.norm_cap * allowed / length.clamp_min(tiny)).clamp(max=1.0)
            change = change * _per_sample(shrink, change)
        return Correction(change, score.value.detach(), ratio)


def _finite(tensor: Tensor) -> Tensor:
    return tensor.isfinite().flatten(1).all(dim=1)


def _norm(tensor: Tensor) -> Tensor:
    return tensor.detach().flatten(1).norm(dim=1)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *([1] * (like.ndim - 1)))
