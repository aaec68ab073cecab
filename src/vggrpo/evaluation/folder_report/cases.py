"""Which clips the page shows: some drawn at random, and the best and worst by the most telling metrics."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggrpo.evaluation.catalogue import Metric
from vggrpo.evaluation.folder_report.contents import FolderContents

DRAWN = 4
RANKED_BY = 4
"""Metrics by which best and worst clips are chosen: one of each family first."""


@dataclass(frozen=True)
class Case:
    """A clip that is shown."""

    place: int
    """In the evaluation's clips."""
    counterpart: int | None
    """In the reference's clips."""
    reasons: tuple[str, ...] = ()
    """What it is an extreme of."""


@dataclass(frozen=True)
class Cases:
    """The clips that are shown, each in one of the groups."""

    drawn: tuple[Case, ...]
    best: tuple[Case, ...]
    worst: tuple[Case, ...]
    ranked_by: tuple[Metric, ...]

    @property
    def all(self) -> tuple[Case, ...]:
        """In the order of the page."""
        return (*self.drawn, *self.best, *self.worst)


def choose_cases(contents: FolderContents, seed: int = 0) -> Cases:
    """The clips for the page: the same for the same results.

    With a reference, clips whose counterpart was measured: best and worst are those that gained most on their
    counterpart, and least (or lost most). Without one, they are those of the best and worst values. A clip
    that is an extreme of several metrics, or was drawn as well, is shown once, with all reasons, in the first
    place where it belongs. (Were extremes not drawn, the others would look more alike than the folder is.)
    """
    own, pairs = contents.own, contents.counterparts()
    usable = [place for place, clip in enumerate(own.clips) if clip.failure is None]
    if contents.reference is not None:
        reference = contents.reference
        usable = [
            place for place in usable if place in pairs and reference.clips[pairs[place]].failure is None
        ]
    best: list[int] = []
    worst: list[int] = []
    reasons: dict[int, list[str]] = {}
    ranked_by: list[Metric] = []
    for metric in contents.telling(len(contents.metrics)):
        gains = _gains(contents, metric, usable, pairs)
        if len(ranked_by) == RANKED_BY or np.isnan(gains).all() or np.nanmin(gains) == np.nanmax(gains):
            continue
        ranked_by.append(metric)
        for places, extreme, is_best in (
            (best, int(np.nanargmax(gains)), True),
            (worst, int(np.nanargmin(gains)), False),
        ):
            place = usable[extreme]
            places.append(place)
            word = _word(is_best, None if contents.reference is None else float(gains[extreme]))
            reasons.setdefault(place, []).append(f"{word}: {metric.label}")
    drawn = sorted(random.Random(seed).sample(usable, min(DRAWN, len(usable))))
    groups = [
        tuple(Case(place, pairs.get(place), tuple(reasons.get(place, ()))) for place in dict.fromkeys(places))
        for places in (
            drawn,
            (place for place in best if place not in drawn),
            (place for place in worst if place not in (*drawn, *best)),
        )
    ]
    return Cases(groups[0], groups[1], groups[2], tuple(ranked_by))


def _word(is_best: bool, gain: float | None) -> str:
    """What an extreme is; `gain` is that on the counterpart, if there is one."""
    if gain is None:
        return "best" if is_best else "worst"
    if is_best:
        return "gained most" if gain > 0 else "lost least"
    return "gained least" if gain > 0 else "lost most"


def _gains(
    contents: FolderContents, metric: Metric, places: list[int], pairs: Mapping[int, int]
) -> NDArray[np.float64]:
    """How good each clip is: higher is better, against its counterpart where there is a reference."""
    values = contents.own.values[metric.name][places]
    if contents.reference is not None and metric.name in contents.reference.values:
        values = values - contents.reference.values[metric.name][[pairs[place] for place in places]]
    gains: NDArray[np.float64] = values if metric.better == "higher" else -values
    return gains
