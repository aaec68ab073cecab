"""The phases of an iteration: timed, and shown while they last."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vggrpo.io import ProgressBar

PHASES = ("time/rollout", "time/score", "time/update")
SHOWN = ("policy/kl", "policy/clip_frac", "policy/grad_norm", *PHASES)
"""Metrics that the progress shows besides the rewards."""


class Phases:
    """Where an iteration is."""

    def __init__(self) -> None:
        self.bar: ProgressBar | None = None
        """Where it is shown, if anywhere."""

    @contextmanager
    def timed(self, metrics: dict[str, float], name: str) -> Iterator[None]:
        """Shows a phase, and notes the seconds of the block as time/<name>."""
        self.show(name)
        began = time.perf_counter()
        yield
        metrics[f"time/{name}"] = time.perf_counter() - began

    def show(self, name: str, done: int = 0, total: int = 0) -> None:
        """Shows how far a phase is, in pieces of any kind."""
        if self.bar is not None:
            self.bar.phase(name, done, total)


def shown(metrics: Mapping[str, float], rewards: Sequence[str]) -> dict[str, float]:
    """The metrics of an iteration that the progress shows, the rewards first."""
    names = (*(f"reward/{name}/mean" for name in rewards), *SHOWN)
    return {name: metrics[name] for name in names if name in metrics}


def first_metrics(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Those of a run's first iteration, with which the progress compares; none before it is done."""
    found = (record for record in records if record["step"] == 1 and PHASES[0] in record)
    return {name: value for name, value in next(found, {}).items() if value is not None}
