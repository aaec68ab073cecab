"""Small operations whose textbook form has no finite gradient somewhere."""

import torch
from torch import Tensor


def safe_norm(x: Tensor) -> Tensor:
    """Euclidean norm over the last dimension, [..., n] -> [...]: exactly 0, with gradient 0, at 0."""
    square = (x * x).sum(dim=-1)
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, torch.ones_like(square)).sqrt(), 0.0)


def masked_mean(values: Tensor, keep: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Mean of the kept values over `dim`; 0 where nothing is kept. The other values may be non-finite."""
    total = torch.where(keep, values, 0.0).sum(dim=dim)
    return total / keep.sum(dim=dim).clamp_min(1)


def masked_median(values: Tensor, keep: Tensor) -> Tensor:
    """Lower median of the kept values of each batch entry, [B, ...] -> [B]; NaN where nothing is kept."""
    flat = torch.where(keep, values, torch.nan).flatten(1)
    return flat.nanmedian(dim=1).values


def lower_quantile(values: Tensor, fraction: float) -> Tensor:
    """The value of rank floor(fraction * (n - 1)) of each batch entry, [B, ...] -> [B], for any n.

    `torch.quantile` refuses more than 2^24 elements, which one clip at 480p exceeds.
    """
    flat = values.flatten(1)
    rank = int(fraction * (flat.shape[1] - 1))
    return flat.kthvalue(rank + 1, dim=1).values
