"""All trackers of a run together; whatever one of them does, the run goes on."""

import importlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Self, TypeVar

from vggrpo.config.errors import ConfigError
from vggrpo.io.histograms import Histogram
from vggrpo.io.trackers.base import Tracked, Tracker

CLASSES = {"tensorboard": "TensorBoardTracker", "wandb": "WandbTracker", "trackio": "TrackioTracker"}
"""By name, which is that of its module here and of the package that it needs."""
NO_EXTRA = {"tensorboard"}
"""Packages that come with vggrpo itself."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


def require_trackers(names: Iterable[str]) -> None:
    """Checks that what the trackers need is installed.

    Raises:
        ConfigError: naming the package that is not.
    """
    for name in names:
        spec = find_spec(name)
        # A mere folder of that name, as wandb itself leaves one in the working directory, has no origin.
        if spec is None or spec.origin is None:
            package = name if name in NO_EXTRA else f'"vggrpo[{name}]"'
            raise ConfigError(
                f"trackers names {name}, which is not installed; run pip install {package}, or leave it out "
                "of --trackers"
            )


class Trackers:
    """Tells every tracker of a run what it logs. Without trackers it does nothing.

    A tracker that cannot be opened, or that fails later, is named in one warning. What it misses is counted
    in `missed`; `metrics.jsonl` has it.
    """

    def __init__(self, openers: Mapping[str, Callable[[], Tracker]] | None = None) -> None:
        """`openers`: by name, what makes the tracker; called at once."""
        self.missed: dict[str, int] = {}
        """By the name of a tracker that failed, how many records and videos it does not have."""
        self._trackers: dict[str, Tracker | None] = {}
        for name, opener in (openers or {}).items():
            self._trackers[name] = self._tried(name, opener)
        self.missed = dict.fromkeys(self.missed, 0)  # a failed opening is no record

    @classmethod
    def open(cls, names: Iterable[str], run: Tracked) -> Self:
        """The trackers of these names, which `require_trackers` has checked, of a run."""
        return cls({name: _opener(name, run) for name in dict.fromkeys(names)})

    def metrics(self, step: int, metrics: Mapping[str, float | int | None]) -> None:
        """Numbers by name; those that are missing or not finite are left out."""
        finite = {name: v for name, v in metrics.items() if v is not None and math.isfinite(v)}
        self._tell(lambda tracker: tracker.metrics(step, finite))

    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Histograms by name."""
        self._tell(lambda tracker: tracker.histograms(step, histograms))

    def video(self, step: int, name: str, path: Path) -> None:
        """A video file."""
        self._tell(lambda tracker: tracker.video(step, name, path))

    def close(self) -> None:
        """Closes all, and says what was missed; the object may be closed twice."""
        for name, tracker in self._trackers.items():
            if tracker is not None:
                self._tried(name, tracker.close)
            if self.missed.get(name):
                logger.warning("the tracker %s has missed %d records of the run", name, self.missed[name])
        self._trackers = {}

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in self._trackers.items():
            if tracker is None:
                self.missed[name] += 1
            else:
                self._tried(name, partial(call, tracker))

    def _tried(self, name: str, call: Callable[[], T]) -> T | None:
        """What `call` gives; None if it fails, which is counted."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - code of others, with a network behind it, may raise anything
            if name not in self.missed:
                logger.warning(
                    "the tracker %s fails (%s: %s); the run goes on, and metrics.jsonl has its metrics",
                    name,
                    type(error).__name__,
                    error,
                )
            self.missed[name] = self.missed.get(name, 0) + 1
            return None


def _opener(name: str, run: Tracked) -> Callable[[], Tracker]:
    def opened() -> Tracker:
        module = importlib.import_module(f"vggrpo.io.trackers.{name}")
        tracker: Tracker = getattr(module, CLASSES[name])(run)
        return tracker

    return opened
