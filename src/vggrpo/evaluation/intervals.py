"""Means with bootstrap intervals, paired differences, and rank statistics of small evaluation samples.

A value that could not be measured is NaN: it is left out and counted, never taken as zero.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggrpo.io import derive_seed

LEVEL = 0.95
RESAMPLES = 4000

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A mean (or another statistic) with its two-sided bootstrap interval."""

    mean: float
    low: float
    """Lower end; NaN where there are fewer than two independent values."""
    high: float
    """Upper end; NaN where there are fewer than two independent values."""
    count: int
    """Values that entered."""
    missing: int = 0
    """Values that were NaN and were left out."""

    @property
    def sign(self) -> int:
        """+1 or -1 where the whole interval lies on one side of zero, 0 where it does not (or is unknown)."""
        if self.low > 0:
            return 1
        return -1 if self.high < 0 else 0

    def as_json(self) -> dict[str, float | int | None]:
        """Mean, ends and, as "n", the number of values; null where there is no number."""
        ends = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: value if math.isfinite(value) else None for name, value in ends.items()} | {
            "n": self.count
        }


def bootstrap_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """The mean of `values` [N] with its percentile bootstrap interval.

    `clusters` [N] names what each value belongs to (the prompt, where one prompt has several noises): whole
    clusters are then resampled, because values of one cluster are not independent of each other.

    Raises:
        ValueError: if `values` is not one-dimensional or `clusters` has another length.
    """
    column = _column("values", values)
    labels = _labels(clusters, len(column))
    keep = ~np.isnan(column)
    missing = int((~keep).sum())
    column, labels = column[keep], labels[keep]
    if not len(column):
        return Interval(float("nan"), float("nan"), float("nan"), 0, missing)
    mean = float(column.mean())
    unique, cluster_of = np.unique(labels, return_inverse=True)
    if len(unique) < 2:
        return Interval(mean, float("nan"), float("nan"), len(column), missing)
    totals = np.bincount(cluster_of, weights=column)
    sizes = np.bincount(cluster_of).astype(np.float64)
    drawn = _cluster_draws(len(unique), seed, resamples)
    low, high = _ends((drawn @ totals) / (drawn @ sizes), level)
    return Interval(mean, low, high, len(column), missing)


def paired_difference(
    before: ArrayLike,
    after: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """The mean of `after - before` [N], pair by pair, with its interval. A pair with a NaN on either side is
    left out.

    Raises:
        ValueError: if the two have different lengths.
    """
    first, second = _pair("before", before, "after", after)
    return bootstrap_mean(second - first, clusters, seed=seed, resamples=resamples, level=level)


def unpaired_difference(
    before: ArrayLike,
    after: ArrayLike,
    clusters_before: Sequence[Hashable] | None = None,
    clusters_after: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """mean(after) - mean(before) of two independent samples [N] and [M], each resampled by itself.

    NaN is left out. `count` is the size of the smaller sample, `missing` what both lack together. There is no
    interval where a side has fewer than two clusters.

    Raises:
        ValueError: if a column is not one-dimensional or its clusters have another length.
    """
    sides = []
    for name, values, clusters, stream in (
        ("before", before, clusters_before, seed),
        # Another stream: with equal draws the two samples would not be independent.
        ("after", after, clusters_after, derive_seed(seed, "unpaired")),
    ):
        column = _column(name, values)
        labels = _labels(clusters, len(column))
        keep = ~np.isnan(column)
        unique, cluster_of = np.unique(labels[keep], return_inverse=True)
        means = None
        if len(unique) > 1:
            drawn = _cluster_draws(len(unique), stream, resamples)
            totals = np.bincount(cluster_of, weights=column[keep])
            means = (drawn @ totals) / (drawn @ np.bincount(cluster_of).astype(np.float64))
        sides.append((column[keep], means, int((~keep).sum())))
    (first, first_means, first_missing), (second, second_means, second_missing) = sides
    count, missing = min(len(first), len(second)), first_missing + second_missing
    if not count:
        return Interval(float("nan"), float("nan"), float("nan"), 0, missing)
    difference = float(second.mean() - first.mean())
    if first_means is None or second_means is None:
        return Interval(difference, float("nan"), float("nan"), count, missing)
    low, high = _ends(second_means - first_means, level)
    return Interval(difference, low, high, count, missing)


def bootstrap_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """mean(numerator) / mean(denominator) of pairs [N] with its interval, resampled pair by pair.

    A pair with a NaN on either side is left out, and so is a resample whose denominator is 0. The interval is
    of use only where the denominator is clearly not 0.

    Args:
        numerator: [N].
        denominator: [N].
        clusters: [N], as for `bootstrap_mean`.
        seed: of the bootstrap.
        resamples: their number.
        level: of the interval.

    Raises:
        ValueError: if the lengths differ.
    """
    top, bottom = _pair("numerator", numerator, "denominator", denominator)
    labels = _labels(clusters, len(top))
    keep = ~(np.isnan(top) | np.isnan(bottom))
    missing = int((~keep).sum())
    top, bottom, labels = top[keep], bottom[keep], labels[keep]
    if not bottom.sum():
        return Interval(float("nan"), float("nan"), float("nan"), len(top), missing)
    value = float(top.sum() / bottom.sum())
    unique, cluster_of = np.unique(labels, return_inverse=True)
    if len(unique) < 2:
        return Interval(value, float("nan"), float("nan"), len(top), missing)
    drawn = _cluster_draws(len(unique), seed, resamples)
    tops, bottoms = (drawn @ np.bincount(cluster_of, weights=column) for column in (top, bottom))
    low, high = _ends(tops[bottoms != 0] / bottoms[bottoms != 0], level)
    return Interval(value, low, high, len(top), missing)


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation of `a` [N] and `b` [N], ties given their mean rank, NaN pairs left out.

    NaN where fewer than two pairs remain or one side is constant: a correlation does not exist there.
    """
    first, second = _pair("a", a, "b", b)
    keep = ~(np.isnan(first) | np.isnan(second))
    return _spearman(first[keep], second[keep])


def spearman_interval(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = LEVEL,
) -> Interval:
    """Spearman's rank correlation (as `mean`) with its cluster bootstrap interval.

    Resamples in which a side is constant have no correlation and are left out of the interval.
    """
    first, second = _pair("a", a, "b", b)
    labels = _labels(clusters, len(first))
    keep = ~(np.isnan(first) | np.isnan(second))
    missing = int((~keep).sum())
    first, second, labels = first[keep], second[keep], labels[keep]
    interval = bootstrap_statistic(
        lambda rows: _spearman(first[rows], second[rows]),
        len(first),
        labels.tolist(),
        seed=seed,
        resamples=resamples,
        level=level,
    )
    return replace(interval, missing=missing)


def bootstrap_statistic(
    statistic: Callable[[Rows], float],
    count: int,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = LEVEL,
) -> Interval:
    """Any statistic of `count` rows (as `mean`) with its percentile cluster bootstrap interval.

    `statistic` is given the numbers of the rows to use, repeated as they were drawn, and returns NaN where it
    does not exist; such resamples are left out of the interval. With fewer than three clusters there is no
    interval.

    Raises:
        ValueError: if `clusters` does not have `count` entries.
    """
    labels = _labels(clusters, count)
    value = statistic(np.arange(count))
    unique, cluster_of = np.unique(labels, return_inverse=True)
    if len(unique) < 3 or np.isnan(value):
        return Interval(value, float("nan"), float("nan"), count)
    drawn = _cluster_draws(len(unique), seed, resamples).astype(np.int64)
    statistics = np.array([statistic(np.repeat(np.arange(count), weights[cluster_of])) for weights in drawn])
    known = statistics[~np.isnan(statistics)]
    low, high = _ends(known, level) if len(known) else (float("nan"), float("nan"))
    return Interval(value, low, high, count)


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Area under the ROC curve: P(positive > negative) + P(equal) / 2, by the rank-sum statistic.

    Raises:
        ValueError: if a side is empty or holds a NaN.
    """
    p, n = _column("positive", positive), _column("negative", negative)
    for name, side in (("positive", p), ("negative", n)):
        if not len(side):
            raise ValueError(f"{name} is empty, but an AUC needs values of both classes")
        if np.isnan(side).any():
            raise ValueError(f"{name} holds NaN; leave out what could not be measured, and count it")
    ranks = _mean_ranks(np.concatenate([p, n]))
    rank_sum = ranks[: len(p)].sum() - len(p) * (len(p) + 1) / 2
    return float(rank_sum / (len(p) * len(n)))


def _column(name: str, values: ArrayLike) -> FloatArray:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"{name} has shape {column.shape}, expected one dimension [N]")
    return column


def _pair(name_a: str, a: ArrayLike, name_b: str, b: ArrayLike) -> tuple[FloatArray, FloatArray]:
    first, second = _column(name_a, a), _column(name_b, b)
    if len(first) != len(second):
        raise ValueError(
            f"{name_a} has {len(first)} values and {name_b} has {len(second)}; they must be pairs"
        )
    return first, second


def _labels(clusters: Sequence[Hashable] | None, count: int) -> NDArray[np.int64]:
    """Clusters as integers in order of first appearance: the draw does not depend on their names."""
    if clusters is None:
        return np.arange(count)
    if len(clusters) != count:
        raise ValueError(f"clusters has {len(clusters)} entries for {count} values; give one for each value")
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(cluster, len(index)) for cluster in clusters], dtype=np.int64)


@lru_cache(maxsize=8)
def _cluster_draws(clusters: int, seed: int, resamples: int) -> FloatArray:
    """How often each cluster is drawn in each resample, [resamples, clusters]; read-only."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(np.float64)
    drawn.flags.writeable = False
    return drawn


def _ends(statistics: FloatArray, level: float) -> tuple[float, float]:
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _mean_ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, ties sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _spearman(a: FloatArray, b: FloatArray) -> float:
    if len(a) < 2:
        return float("nan")
    rank_a, rank_b = _mean_ranks(a), _mean_ranks(b)
    rank_a, rank_b = rank_a - rank_a.mean(), rank_b - rank_b.mean()
    scale = float(np.sqrt((rank_a**2).sum() * (rank_b**2).sum()))
    return float((rank_a * rank_b).sum() / scale) if scale > 0 else float("nan")
