"""Trackio: a local database that `trackio show` reads, or a Space of Hugging Face (TRACKIO_SPACE_ID)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vggrpo.io.histograms import Histogram
from vggrpo.io.trackers.base import Tracked, Tracker


class TrackioTracker(Tracker):
    """A run of a Trackio project."""

    def __init__(self, run: Tracked) -> None:
        import trackio

        self._trackio = trackio
        self._run = trackio.init(
            project=run.project,
            name=f"{run.name}-{run.identity}",
            config=dict(run.settings),
            resume="allow",
            embed=False,
        )

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        shown = {
            name: self._trackio.Histogram(np_histogram=(np.array(one.counts), np.array(one.edges)))
            for name, one in histograms.items()
        }
        self._run.log(shown, step=step)

    def video(self, step: int, name: str, path: Path) -> None:
        self._run.log({name: self._trackio.Video(str(path))}, step=step)

    def close(self) -> None:
        self._run.finish()
