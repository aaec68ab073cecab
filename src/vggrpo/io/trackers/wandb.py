"""Weights & Biases. Its own variables hold: WANDB_MODE=offline, WANDB_API_KEY, WANDB_ENTITY, ..."""

from collections.abc import Mapping
from pathlib import Path

from vggrpo.io.histograms import Histogram
from vggrpo.io.trackers.base import Tracked, Tracker

CLOCK = "iteration"
"""The axis of all metrics. W&B's own step never goes back, as a resumed run does."""
SECONDS_TO_START = 60.0


class WandbTracker(Tracker):
    """A run of a W&B project; its local files are in the run folder."""

    def __init__(self, run: Tracked) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.identity,
            resume="allow",
            dir=str(run.path),
            config=dict(run.settings),
            settings=wandb.Settings(console="off", init_timeout=SECONDS_TO_START),
        )
        self._run.define_metric(CLOCK)
        self._run.define_metric("*", step_metric=CLOCK)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({**metrics, CLOCK: step})

    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        shown = {
            name: self._wandb.Histogram(np_histogram=(list(one.counts), list(one.edges)))
            for name, one in histograms.items()
        }
        self._run.log({**shown, CLOCK: step})

    def video(self, step: int, name: str, path: Path) -> None:
        self._run.log({name: self._wandb.Video(str(path), format="mp4"), CLOCK: step})

    def close(self) -> None:
        self._run.finish()
