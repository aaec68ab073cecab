"""Several evaluations in one table: means, differences from a baseline, and which are best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vggrpo.config.errors import ConfigError
from vggrpo.evaluation.catalogue import Metric, describe
from vggrpo.evaluation.comparison import Comparison
from vggrpo.evaluation.evaluated import KINDS, EvaluatedClips
from vggrpo.evaluation.intervals import Interval, bootstrap_mean, paired_difference, unpaired_difference
from vggrpo.evaluation.run_comparison.checks import comparability_notes
from vggrpo.evaluation.run_comparison.pairing import Pairing, pair_runs

Rank = Literal["best", "tied"]
Column = NDArray[np.float64]
"""One metric on the clips of one run [N]; NaN where it was not measured."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One run's figures for one metric."""

    values: Column
    """Of the clips that entered; NaN for those that did not."""
    mean: Interval
    change: Comparison | None
    """From the baseline; None for the baseline itself, and where the baseline was not measured."""
    rank: Rank | None
    """"best" mean of the line; "tied" if the difference from the best is not significant. None for metrics
    without a better direction, and where fewer than two runs have an interval.
    """

    @property
    def verdict(self) -> str | None:
        """Of the change: "better", "worse", "higher", "lower" or "no clear change"; None without an
        interval.
        """
        if self.change is None or self.change.change.low != self.change.change.low:
            return None
        return self.change.verdict


@dataclass(frozen=True)
class MetricRow:
    """One metric on one kind of scene, a cell a run; None where the run was not measured by it."""

    metric: Metric
    subset: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class RunComparison:
    """Evaluations side by side."""

    runs: tuple[EvaluatedClips, ...]
    labels: tuple[str, ...]
    baseline: int
    """Place of the baseline among the runs."""
    pairing: Pairing
    rows: tuple[MetricRow, ...]
    notes: tuple[str, ...]
    """What a reader must know before believing a difference."""

    @property
    def subsets(self) -> tuple[str, ...]:
        """ "all", and the kinds of scene that some of the clips show."""
        return tuple(dict.fromkeys(row.subset for row in self.rows))

    def rows_of(self, subset: str) -> list[MetricRow]:
        """The rows of one subset, in order."""
        return [row for row in self.rows if row.subset == subset]


def compare_runs(
    runs: Sequence[EvaluatedClips],
    labels: Sequence[str],
    baseline: int = 0,
    pairing: Literal["auto", "paired", "unpaired"] = "auto",
    seed: int = 0,
) -> RunComparison:
    """Compares evaluations metric by metric, on all clips and on static and dynamic scenes apart.

    Where the runs share clips (the same prompt and seed), every line is over the clips that all runs with
    that metric could measure, and differences are paired. Otherwise each run counts with its own clips, and
    differences are those of independent samples, whose intervals are wider.

    Args:
        runs: at least two.
        labels: their names, all different.
        baseline: place of the run that the others are compared with.
        pairing: "auto" pairs if possible; "paired" insists; "unpaired" takes all clips of every run.
        seed: of the bootstrap.

    Raises:
        ConfigError: if pairing is insisted on and impossible, or nothing was measured.
        ValueError: if a run holds a metric that the catalogue does not describe.
    """
    if len(runs) < 2 or len(set(labels)) < len(runs):
        raise ConfigError(f"compare needs two runs or more with different names, but got {', '.join(labels)}")
    chosen = pair_runs(runs, labels, pairing)
    names = list(dict.fromkeys(name for run in runs for name in run.values))
    if not names:
        raise ConfigError("no run holds a metric; nothing can be compared")
    rows = []
    everything = [list(places) for places in chosen.places]
    for subset in ("all", *KINDS):
        places = [chosen.places_of(run, i, subset) for i, run in enumerate(runs)]
        if any(places) and (subset == "all" or places != everything):
            table = _Subset(runs, places, chosen.is_paired, baseline, subset, seed)
            rows += [table.row(describe(name)) for name in names]
    notes = (*chosen.notes, *comparability_notes(runs, labels))
    return RunComparison(tuple(runs), tuple(labels), baseline, chosen, tuple(rows), notes)


@dataclass(frozen=True)
class _Subset:
    """The clips of one subset: of each run, where they are."""

    runs: Sequence[EvaluatedClips]
    places: Sequence[Sequence[int]]
    is_paired: bool
    baseline: int
    subset: str
    seed: int

    def row(self, metric: Metric) -> MetricRow:
        columns = self._columns(metric.name)
        means = {
            run: bootstrap_mean(column, self._clusters(run), seed=self.seed)
            for run, column in columns.items()
        }
        ranks = self._ranks(metric, columns, means)
        cells = [
            Cell(columns[run], means[run], self._change(metric, columns, means, run), ranks.get(run))
            if run in columns
            else None
            for run in range(len(self.runs))
        ]
        return MetricRow(metric, self.subset, tuple(cells))

    def _columns(self, name: str) -> dict[int, Column]:
        """The values of every run that has the metric. Of pairs, only clips that all of them could measure:
        a mean must not look better because the run failed on the difficult ones.
        """
        columns = {
            number: run.values[name][list(self.places[number])]
            for number, run in enumerate(self.runs)
            if name in run.values
        }
        if not self.is_paired:
            return columns
        measured = [np.isfinite(column) for column in columns.values() if np.isfinite(column).any()]
        shared = np.logical_and.reduce(measured) if measured else np.zeros(len(self.places[0]), dtype=bool)
        return {run: np.where(shared, column, np.nan) for run, column in columns.items()}

    def _change(
        self, metric: Metric, columns: Mapping[int, Column], means: Mapping[int, Interval], run: int
    ) -> Comparison | None:
        if run == self.baseline or self.baseline not in columns:
            return None
        before, after = means[self.baseline], means[run]
        if not before.count or not after.count:
            return None
        difference = self._difference(columns, self.baseline, run)
        spread = float(np.nanstd(columns[self.baseline]))
        return Comparison(metric, self.subset, before, after, difference, spread)

    def _ranks(
        self, metric: Metric, columns: Mapping[int, Column], means: Mapping[int, Interval]
    ) -> dict[int, Rank]:
        """Of the runs whose mean has an interval: one prompt alone makes nothing the best."""
        known = {run: mean.mean for run, mean in means.items() if np.isfinite(mean.low)}
        if metric.better == "watch" or len(known) < 2:
            return {}
        best = (max if metric.better == "higher" else min)(known, key=lambda run: known[run])
        ranks: dict[int, Rank] = {}
        for run, mean in known.items():
            if mean == known[best]:
                ranks[run] = "best"
            elif self._difference(columns, best, run).sign == 0:
                ranks[run] = "tied"
        return ranks

    def _difference(self, columns: Mapping[int, Column], before: int, after: int) -> Interval:
        if self.is_paired:
            return paired_difference(columns[before], columns[after], self._clusters(before), seed=self.seed)
        clusters = (self._clusters(before), self._clusters(after))
        return unpaired_difference(columns[before], columns[after], *clusters, seed=self.seed)

    def _clusters(self, run: int) -> list[str]:
        return [self.runs[run].clips[place].cluster for place in self.places[run]]
