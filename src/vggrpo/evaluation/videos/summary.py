"""Means of a folder with their intervals, by kind of scene, and paired differences to a reference."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vggrpo.evaluation.catalogue import describe
from vggrpo.evaluation.catalogue_judges import VIDEO_REWARD
from vggrpo.evaluation.intervals import bootstrap_mean, paired_difference
from vggrpo.evaluation.videos.base import MetricSet
from vggrpo.evaluation.videos.results import Record, column
from vggrpo.evaluation.win_rates import win_rate

SUMMARY_NAME = "summary.json"
SUBSETS = ("all", "static", "dynamic")

Rows = dict[str, dict[str, dict[str, float | int | None] | None]]
"""By metric, then by subset; None for a kind of which there are no clips."""
WinRateRows = Rows
"""The same with the counts "wins", "ties" and "losses" beside "n"."""


def metric_rows(records: Sequence[Record], names: Sequence[str], seed: int = 0) -> Rows:
    """Mean, 95 % bootstrap interval over prompts and number of values of every metric.

    A clip that failed, or on which the metric could not be measured, does not count.
    """
    rows: Rows = {}
    for name in names:
        rows[name] = {}
        for subset, chosen in _subsets(records).items():
            interval = bootstrap_mean(column(chosen, name), [cluster_of(r) for r in chosen], seed=seed)
            rows[name][subset] = interval.as_json() if chosen else None
    return rows


def difference_rows(pairs: Sequence[tuple[Record, Record]], names: Sequence[str], seed: int = 0) -> Rows:
    """The same of the differences, clip minus its reference; a pair with a missing value does not count."""
    rows: Rows = {}
    reference_of = {record["clip"]: reference for record, reference in pairs}
    records = [record for record, _ in pairs]
    for name in names:
        rows[name] = {}
        for subset, chosen in _subsets(records).items():
            interval = paired_difference(
                column([reference_of[record["clip"]] for record in chosen], name),
                column(chosen, name),
                [cluster_of(record) for record in chosen],
                seed=seed,
            )
            rows[name][subset] = interval.as_json() if chosen else None
    return rows


def win_rate_rows(
    pairs: Sequence[tuple[Record, Record]], names: Sequence[str], seed: int = 0, judged_tie: float = 0.0
) -> WinRateRows:
    """How often clips are better than their reference, for every metric that has a better direction.

    `judged_tie` is the difference up to which two scores of VideoReward are a tie; values of other metrics
    tie only if they are equal.
    """
    rows: WinRateRows = {}
    reference_of = {record["clip"]: reference for record, reference in pairs}
    records = [record for record, _ in pairs]
    for name in names:
        better = describe(name).better
        if better == "watch":
            continue
        rows[name] = {}
        for subset, chosen in _subsets(records).items():
            rate = win_rate(
                column(chosen, name),
                column([reference_of[record["clip"]] for record in chosen], name),
                [cluster_of(record) for record in chosen],
                better=better,
                tie=judged_tie if name in VIDEO_REWARD else 0.0,
                seed=seed,
            )
            rows[name][subset] = rate.as_json() if chosen else None
    return rows


def not_run_reasons(metrics: MetricSet) -> dict[str, str]:
    """The reason for every value that was not measured at all."""
    return {name: entry.reason for entry in metrics.not_run for name in entry.metrics}


def cluster_of(record: Mapping[str, Any]) -> str:
    """The prompt, by which intervals resample; the clip itself where there is none."""
    return str(record["clip"] if record["prompt_id"] is None else record["prompt_id"])


def size_notes(records: Sequence[Record]) -> tuple[str | None, dict[str, str]]:
    """A sentence on the sizes of the clips if there are several, and one for each clip of a rarer size."""
    sizes = Counter(_size(record) for record in records if record["status"] == "ok")
    if len(sizes) < 2:
        return None, {}
    common = sizes.most_common(1)[0][0]
    listed = ", ".join(f"{size} ({count})" for size, count in sizes.most_common())
    notes = {
        record["clip"]: f"{_size(record)} pixels, where most clips have {common}: errors in pixels do not "
        "compare"
        for record in records
        if record["status"] == "ok" and _size(record) != common
    }
    return f"clips have several sizes: {listed}; errors in pixels do not compare between them", notes


def _size(record: Record) -> str:
    return f"{record['width']}x{record['height']}"


def _subsets(records: Sequence[Record]) -> dict[str, list[Record]]:
    kinds = {kind: [record for record in records if record["kind"] == kind] for kind in SUBSETS[1:]}
    return {"all": list(records), **kinds}
