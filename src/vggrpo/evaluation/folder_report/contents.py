"""What the page about an evaluated folder shows, read from its results."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vggrpo.evaluation.catalogue import Metric, describe
from vggrpo.evaluation.comparison import Comparison
from vggrpo.evaluation.evaluated import (
    KINDS,
    EvaluatedClips,
    interval_of,
    read_evaluation,
)
from vggrpo.evaluation.intervals import Interval
from vggrpo.evaluation.report.families import telling
from vggrpo.evaluation.videos.folder import REFERENCE_NAME
from vggrpo.evaluation.videos.summary import SUMMARY_NAME

SUBSETS = ("all", *KINDS)


@dataclass(frozen=True)
class FolderContents:
    """An evaluation and, where there is one, that of its reference."""

    own: EvaluatedClips
    reference: EvaluatedClips | None
    metrics: tuple[Metric, ...]
    """All that were measured, as the catalogue describes them."""
    subsets: tuple[str, ...]
    """"all", and the kinds of scene that some of the clips show."""
    created: str
    """When the summary was written."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """The content of summary.json."""
        return self.own.summary

    @property
    def reference_label(self) -> str:
        """The name of the reference."""
        return self.reference.label if self.reference else ""

    def mean(self, metric: str, subset: str) -> Interval | None:
        """Of the own clips."""
        return interval_of(self.summary["metrics"][metric].get(subset))

    def reference_mean(self, metric: str, subset: str) -> Interval | None:
        """Of the reference's clips."""
        if self.reference is None:
            return None
        return interval_of(self.reference.summary["metrics"].get(metric, {}).get(subset))

    def change(self, metric: Metric, subset: str) -> Comparison | None:
        """The own clips against their counterparts in the reference; None where nothing was paired."""
        differences = (self.summary.get("reference") or {}).get(metric.name, {}).get(subset)
        before, after = self.reference_mean(metric.name, subset), self.mean(metric.name, subset)
        change = interval_of(differences)
        if self.reference is None or change is None or before is None or after is None or not change.count:
            return None
        values = self.reference.values[metric.name]
        values = values[self.reference.rows(None if subset == "all" else subset)]
        spread = float(np.nanstd(values)) if np.isfinite(values).any() else float("nan")
        return Comparison(metric, subset, before, after, change, spread)

    def changes(self, subset: str = "all") -> list[Comparison]:
        """Of every metric that was paired."""
        found = (self.change(metric, subset) for metric in self.metrics)
        return [change for change in found if change is not None]

    def telling(self, most: int) -> list[Metric]:
        """Up to `most` metrics with a better direction that have an interval (of the change, where there is a
        reference): the first of each family, then the second ones.
        """
        known = []
        for metric in self.metrics:
            interval = self.mean(metric.name, "all")
            if self.reference is not None:
                change = self.change(metric, "all")
                interval = change.change if change is not None else None
            if interval is not None and np.isfinite(interval.low):
                known.append(metric)
        return telling(known, most)

    def counterparts(self) -> dict[int, int]:
        """The place of each own clip's counterpart in the reference, by the own clip's place."""
        if self.reference is None:
            return {}
        places, own = self.reference.by_key(), self.own.by_key()
        return {place: places[key] for key, place in own.items() if key in places}


def read_contents(output: Path) -> FolderContents:
    """The results in an output folder of `vggrpo evaluate`.

    Raises:
        ConfigError: if it holds none, or none that is finished.
        CorruptFileError: if a file of it is damaged.
        ValueError: if it holds a metric that the catalogue does not describe.
    """
    own = read_evaluation(output)
    folder = output / REFERENCE_NAME
    has_reference = own.summary.get("reference") is not None and folder.is_dir()
    seconds = (output / SUMMARY_NAME).stat().st_mtime
    return FolderContents(
        own,
        read_evaluation(folder) if has_reference else None,
        tuple(describe(name) for name in own.summary["metrics"]),
        ("all", *(kind for kind in KINDS if 0 < len(own.rows(kind)) < len(own.clips))),
        datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
