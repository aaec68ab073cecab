"""What one number does not say of an update: how ratios are spread, and which denoising steps are clipped."""

import torch

from vggrpo.io import Histogram
from vggrpo.training.losses import PolicyLoss
from vggrpo.training.ranks import Ranks

RATIO = "policy/ratio_histogram"
"""Transitions by (rho - 1) / clip_eps: -1 and 1 are the ends of the clip range."""
CLIPPED = "policy/clipped_by_step"
"""Transitions whose gradient the clip cut off, by denoising step; the window has an equal number of each."""
HALF_BINS, PER_RANGE = 23, 9
"""Bins of 2/9 clip ranges: one around ratio 1, and edges at both ends of the clip range and at 5. The first
and the last bin hold everything beyond that."""


class UpdateHistograms:
    """Counts the transitions of one update.

    Args:
        clip_eps: half-width of the clip range.
        start, length: of the window of stochastic steps.
    """

    def __init__(self, clip_eps: float, start: int, length: int) -> None:
        self.clip_eps, self.start = clip_eps, start
        ends = torch.arange(-2 * HALF_BINS - 1, 2 * HALF_BINS + 2, 2, dtype=torch.float64)
        self.edges = ends / PER_RANGE
        self.ratio = torch.zeros(2 * HALF_BINS + 1, dtype=torch.float64)
        self.clipped = torch.zeros(length, dtype=torch.float64)

    def add(self, step: int, loss: PolicyLoss) -> None:
        """The transitions of a loss, all of step `step` of the window."""
        deviation = (loss.ratio.double().cpu().flatten() - 1) / self.clip_eps
        bins = torch.bucketize(deviation, self.edges[1:-1], right=True)
        self.ratio += torch.bincount(bins, minlength=len(self.ratio))
        self.clipped[step] += float(loss.clipped.sum())

    def of_all(self, ranks: Ranks) -> dict[str, Histogram]:
        """Both histograms over all ranks, by name; none if no transition took part in the update."""
        parts = ranks.gather_shares((self.ratio.tolist(), self.clipped.tolist()))
        ratio, clipped = (torch.tensor(counts).sum(0).tolist() for counts in zip(*parts, strict=True))
        if not sum(ratio):
            return {}
        steps = [self.start + step - 0.5 for step in range(len(clipped) + 1)]
        return {
            RATIO: Histogram(tuple(self.edges.tolist()), tuple(ratio)),
            CLIPPED: Histogram(tuple(steps), tuple(clipped)),
        }
