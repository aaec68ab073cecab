"""How often clips beat their counterparts: win rates with ties and bootstrap intervals."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from vggrpo.evaluation.intervals import Interval, bootstrap_mean


@dataclass(frozen=True)
class WinRate:
    """What came of comparing pairs."""

    rate: Interval
    """(wins + ties / 2) / pairs, in [0, 1]; 1/2 is no difference."""
    wins: int
    ties: int
    losses: int

    def as_json(self) -> dict[str, float | int | None]:
        """Its numbers; null where there is none."""
        return self.rate.as_json() | {"wins": self.wins, "ties": self.ties, "losses": self.losses}


def win_rate(
    values: ArrayLike,
    reference: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    better: Literal["higher", "lower"] = "higher",
    tie: float = 0.0,
    seed: int = 0,
) -> WinRate:
    """How often `values` [N] are better than `reference` [N], pair by pair.

    A pair that differs by at most `tie` is a tie, and counts half. A pair with a NaN on either side is left
    out. The interval resamples whole `clusters` [N] (the prompts), as `bootstrap_mean` does.

    Raises:
        ValueError: if the lengths differ, or `tie` is negative.
    """
    first, second = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"there are {first.size} values and {second.size} references; they must be pairs")
    if tie < 0:
        raise ValueError(f"tie is {tie}, expected 0 or more")
    margin = first - second if better == "higher" else second - first
    known = ~np.isnan(margin)
    points = np.where(margin > tie, 1.0, np.where(margin < -tie, 0.0, 0.5))
    return WinRate(
        rate=bootstrap_mean(np.where(known, points, np.nan), clusters, seed=seed),
        wins=int((points[known] == 1).sum()),
        ties=int((points[known] == 0.5).sum()),
        losses=int((points[known] == 0).sum()),
    )
