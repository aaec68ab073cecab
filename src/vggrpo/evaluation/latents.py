"""Statistics of latents: noise that a sampler left behind shows in them before it shows anywhere else."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EXTREME = 3.0
"""Normalised latents beyond +- this are extreme: .27 % of a standard normal distribution."""


def latent_moments(latents: Tensor) -> dict[str, Tensor]:
    """Moments of normalised latents [N, C, T, H, W], in float64 on the CPU.

    By name: "mean" [C] and "square" [C], means of a channel's values and of their squares; "step" [C], mean
    square difference of vertical and horizontal neighbours; "extreme" [], share of values beyond +- EXTREME.
    The moments of several sets of equal size together are the means of theirs.

    Raises:
        ValueError: if `latents` has another shape, or no neighbours because a side is 1.
    """
    if latents.ndim != 5 or min(latents.shape[-2:]) < 2:
        raise ValueError(
            f"latents have shape {list(latents.shape)}, expected [N, C, T, H, W] with H and W at least 2"
        )
    inner, double = (0, 2, 3, 4), torch.float64
    steps = [latents.diff(dim=dim).square() for dim in (-2, -1)]
    pairs = sum(step[:, 0].numel() for step in steps)
    moments = {
        "mean": latents.mean(inner, dtype=double),
        "square": latents.square().mean(inner, dtype=double),
        "step": torch.stack([step.sum(inner, dtype=double) for step in steps]).sum(0) / pairs,
        "extreme": (latents.abs() > EXTREME).double().mean(),
    }
    return {name: moment.cpu() for name, moment in moments.items()}


@dataclass(frozen=True)
class LatentProfile:
    """Three numbers of every channel, [C] each."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    roughness: NDArray[np.float64]
    """Root mean square difference of neighbours: sqrt(2) std in white noise, less in a picture."""

    @classmethod
    def of(cls, moments: Mapping[str, NDArray[np.float64]]) -> "LatentProfile":
        """From the "mean", "square" and "step" of `latent_moments`."""
        mean = moments["mean"]
        # Rounding may take a constant channel's variance below 0.
        return cls(mean, np.sqrt(np.maximum(moments["square"] - mean**2, 0.0)), np.sqrt(moments["step"]))

    @property
    def overall_roughness(self) -> float:
        """Root mean square difference of neighbours over all channels."""
        return float(np.sqrt((self.roughness**2).mean()))


def latent_shift(reference: LatentProfile, other: LatentProfile) -> float:
    """How far latents are from a reference in their statistics, in standard deviations of the reference.

        sqrt( mean_c [ (m_c - m'_c)^2 + (s_c - s'_c)^2 + (g_c - g'_c)^2 ] / mean_c s_c^2 )

    with mean m, standard deviation s and roughness g of channel c. The first two terms are the Frechet
    distance between Gaussians of independent channels; the third sees white noise, which hardly moves them.
    NaN if the reference is constant.
    """
    scale = float((reference.std**2).mean())
    if scale == 0.0:
        return float("nan")
    squares = [
        (getattr(other, name) - getattr(reference, name)) ** 2 for name in ("mean", "std", "roughness")
    ]
    return float(np.sqrt(np.sum(squares, axis=0).mean() / scale))
