"""The Fréchet distance between sets of clips, on features of a geometry model.

Each set is taken for a Gaussian in the space of the features' first principal components. Of two Gaussians

    d^2 = |mu_a - mu_b|^2 + tr( S_a + S_b - 2 (S_a S_b)^(1/2) ),

as in the FID (Heusel et al., 2017), which takes the features of an image classifier instead.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vggrpo.backbones import GeometryBackbone

COMPONENTS = 64

FloatArray = NDArray[np.float64]


@torch.no_grad()
def clip_features(geometry: GeometryBackbone, views: Tensor) -> Tensor:
    """What a geometry model sees in clips, [B, 3 C] float32: statistics of its last stitch point's tokens.

    Of each of their C channels: the mean over views and positions; the standard deviation over positions,
    averaged over views (how varied a picture is); and the standard deviation over views, averaged over
    positions (how much changes in the course of the clip).

    Args:
        geometry: the model.
        views: [B, T, H, W, 3] in [0, 1], sides multiples of its patch size.
    """
    last = geometry.stitch_points[-1].name
    tokens = geometry.tokens_at(views, [last])[last][0].float()
    parts = (tokens.mean((1, 2)), tokens.std(2, correction=0).mean(1), tokens.std(1, correction=0).mean(1))
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class PrincipalComponents:
    """Standardises features, and projects them on the directions in which a reference set varies most."""

    mean: FloatArray
    """[F]."""
    scale: FloatArray
    """[F], standard deviations; 1 for a feature that does not vary."""
    directions: FloatArray
    """[F, D], orthonormal."""

    @classmethod
    def fit(cls, features: ArrayLike, components: int = COMPONENTS) -> "PrincipalComponents":
        """Of a reference set [N, F], none of those to be compared; fewer components if N - 1 or F is less.

        Raises:
            ValueError: if there are not at least two rows of finite numbers.
        """
        reference = _rows("features", features)
        mean, deviation = reference.mean(0), reference.std(0)
        scale = np.where(deviation > 0, deviation, 1.0)
        _, _, rows = np.linalg.svd((reference - mean) / scale, full_matrices=False)
        return cls(mean, scale, rows[: min(components, len(reference) - 1)].T)

    def __call__(self, features: ArrayLike) -> FloatArray:
        """Coordinates [N, D] of features [N, F].

        Raises:
            ValueError: if there are not at least two rows of F finite numbers.
        """
        rows = _rows("features", features)
        if rows.shape[1] != len(self.mean):
            raise ValueError(f"features have {rows.shape[1]} columns, but the fit had {len(self.mean)}")
        coordinates: FloatArray = ((rows - self.mean) / self.scale) @ self.directions
        return coordinates


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """d^2 between the Gaussians of samples a [N, D] and b [M, D], with unbiased covariances.

    Like every such estimate it grows as the samples get fewer: compare sets of the same size.

    Raises:
        ValueError: if a side has fewer than two rows, the widths differ, or a number is not finite.
    """
    first, second = _rows("a", a), _rows("b", b)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"a has {first.shape[1]} columns and b has {second.shape[1]}; they must be equal")
    covariances = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (first, second))
    return gaussian_frechet(first.mean(0), second.mean(0), *covariances)


def gaussian_frechet(
    mean_a: FloatArray, mean_b: FloatArray, covariance_a: FloatArray, covariance_b: FloatArray
) -> float:
    """d^2 between N(mean_a, covariance_a) and N(mean_b, covariance_b); means [D], covariances [D, D].

    The trace of (S_a S_b)^(1/2) is that of (R S_b R)^(1/2) with R = S_a^(1/2), which is symmetric: no complex
    numbers appear, and covariances may be singular.
    """
    root = _symmetric_root(covariance_a)
    cross = _eigenvalues(root @ covariance_b @ root)
    shift = float(((mean_a - mean_b) ** 2).sum())
    spread = float(np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(cross).sum())
    return shift + max(spread, 0.0)


def place_on_scale(distance: float, zero: float, full: float) -> float:
    """Where a distance lies between `zero` (0) and `full` (1); NaN if these do not differ in that order."""
    return (distance - zero) / (full - zero) if full > zero else float("nan")


def _symmetric_root(matrix: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    root: FloatArray = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def _eigenvalues(matrix: FloatArray) -> FloatArray:
    values: FloatArray = np.linalg.eigvalsh((matrix + matrix.T) / 2).clip(min=0)
    return values


def _rows(name: str, values: ArrayLike) -> FloatArray:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"{name} has shape {rows.shape}, expected at least two rows [N, D]")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} holds numbers that are not finite, so it has no mean and no covariance")
    return rows
