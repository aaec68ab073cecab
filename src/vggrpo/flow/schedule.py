"""The grid of noise levels along which a rectified flow is integrated."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Moves noise levels towards 1: shift * sigma / (1 + (shift - 1) * sigma), which fixes 0 and 1."""
    return shift * sigma / (1.0 + (shift - 1.0) * sigma)


@dataclass(frozen=True, eq=False)
class SigmaSchedule:
    """Strictly decreasing noise levels sigma_0 > ... > sigma_N = 0, where 1 is pure noise.

    Step i goes from `sigmas[i]` to `sigmas[i + 1]`. The levels are kept in float64 and never rounded to the
    integer timesteps of a discrete schedule.
    """

    sigmas: Tensor
    """[N + 1], float64 on the CPU. Any one-dimensional tensor is accepted and converted."""

    def __post_init__(self) -> None:
        sigmas = self.sigmas.detach().to(device="cpu", dtype=torch.float64).clone()
        if sigmas.ndim != 1 or len(sigmas) < 2:
            raise ValueError(f"sigmas has shape {tuple(sigmas.shape)}, expected [N + 1] with N >= 1 steps")
        if not bool(torch.isfinite(sigmas).all()):
            raise ValueError(f"sigmas must be finite, got {sigmas.tolist()}")
        if not 0.0 < float(sigmas[0]) <= 1.0:
            raise ValueError(
                f"sigmas must start in (0, 1], where 1 is pure noise, but sigmas[0] is {float(sigmas[0])}"
            )
        if float(sigmas[-1]) != 0.0:
            raise ValueError(
                f"sigmas must end in 0 (a clean sample), but the last one is {float(sigmas[-1])}"
            )
        rising = torch.nonzero(sigmas[1:] >= sigmas[:-1]).flatten()
        if len(rising):
            i = int(rising[0])
            raise ValueError(
                f"sigmas must strictly decrease, but sigmas[{i}] is {float(sigmas[i])} "
                f"and sigmas[{i + 1}] is {float(sigmas[i + 1])}"
            )
        object.__setattr__(self, "sigmas", sigmas)

    @property
    def num_steps(self) -> int:
        """N, the number of steps (one less than the number of levels)."""
        return len(self.sigmas) - 1

    def step(self, index: int) -> tuple[float, float]:
        """(sigma, sigma_next) of step `index` in 0 .. num_steps - 1.

        Raises:
            ValueError: if there is no such step.
        """
        if not 0 <= index < self.num_steps:
            raise ValueError(f"step index is {index}, but the schedule has steps 0 to {self.num_steps - 1}")
        return float(self.sigmas[index]), float(self.sigmas[index + 1])

    def steps(self) -> Iterator[tuple[float, float]]:
        """All pairs (sigma, sigma_next), from noise to clean."""
        return (self.step(index) for index in range(self.num_steps))

    @classmethod
    def linear(cls, num_steps: int, shift: float = 1.0, sigma_max: float = 1.0) -> "SigmaSchedule":
        """Levels that start at `sigma_max` and are evenly spaced before the shift.

        With `sigma_max` 1 this is the grid shift * s / (1 + (shift - 1) * s) of s = 1, 1 - 1/N, ..., 0. A
        smaller `sigma_max` is met exactly whatever the shift: the even grid starts where the shift maps
        onto it.

        Raises:
            ValueError: if `num_steps` < 1, `shift` is not positive or `sigma_max` is outside (0, 1].
        """
        _check_grid(num_steps, shift)
        if not 0.0 < sigma_max <= 1.0:
            raise ValueError(f"sigma_max is {sigma_max}, expected a noise level in (0, 1]")
        unshifted_max = sigma_max / (shift - (shift - 1.0) * sigma_max)
        sigmas = shift_sigma(torch.linspace(unshifted_max, 0.0, num_steps + 1, dtype=torch.float64), shift)
        sigmas[0] = sigma_max
        return cls(sigmas)

    @classmethod
    def unipc(cls, num_steps: int, shift: float = 1.0) -> "SigmaSchedule":
        """The grid on which Wan is sampled: UniPCMultistepScheduler of diffusers with `use_flow_sigmas`.

        s = linspace(1, 1e-3, N + 1) without its last entry, shifted, then a final 0; the first level is
        1 - 1e-6. Unlike that scheduler's timesteps, the levels stay floats.

        Raises:
            ValueError: if `num_steps` < 1 or `shift` is not positive.
        """
        _check_grid(num_steps, shift)
        sigmas = torch.zeros(num_steps + 1, dtype=torch.float64)
        sigmas[:-1] = shift_sigma(torch.linspace(1.0, 1e-3, num_steps + 1, dtype=torch.float64)[:-1], shift)
        sigmas[0] = 1.0 - 1e-6
        return cls(sigmas)


def _check_grid(num_steps: int, shift: float) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}, expected at least 1")
    if not (math.isfinite(shift) and shift > 0.0):
        raise ValueError(f"shift is {shift}, expected a positive number (1 leaves the grid evenly spaced)")
