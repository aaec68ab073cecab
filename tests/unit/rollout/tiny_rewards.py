"""Scores of latents that are formulas."""

import torch
from torch import Tensor

from vggrpo.rollout import LatentScore


def mean_score(latents: Tensor) -> LatentScore:
    """The mean of each sample."""
    value = latents.flatten(1).mean(dim=1)
    return LatentScore(value.detach(), value, {"mean": value.detach()})


def score_of_positive(latents: Tensor) -> LatentScore:
    """The mean of each sample, failed where it is not above 0."""
    value = latents.flatten(1).mean(dim=1)
    failed = torch.where(value > 0, value, torch.nan).detach()
    return LatentScore(failed, torch.where(value > 0, value, 0.0), {"mean": failed})
