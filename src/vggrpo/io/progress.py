"""Progress of long work: a bar with rate and remaining time on a terminal, occasional lines elsewhere."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

SECONDS_BETWEEN_LINES = 30.0
METRICS_SHOWN = 4


class ProgressBar(ABC):
    """Counts finished pieces of work. Made by `progress`."""

    def __init__(self, description: str, total: int, done: int, unit: str) -> None:
        self.description, self.total, self.done, self.unit = description, total, done, unit
        self._first, self._started = done, time.monotonic()
        self._metrics: dict[str, float] = {}

    def advance(self, count: int = 1, /, **metrics: float) -> None:
        """Adds `count` finished pieces; `metrics` are the latest figures; the first few are shown."""
        self.done += count
        self._metrics.update(metrics)
        self._show()

    def state(self) -> str:
        """Rate, remaining time and the latest figures in words."""
        parts = []
        elapsed = time.monotonic() - self._started
        if self.done > self._first and elapsed > 0:
            rate = (self.done - self._first) / elapsed
            per_second = rate >= 1
            parts.append(f"{rate:.3g} {self.unit}/s" if per_second else f"{1 / rate:.3g} s/{self.unit}")
            if self.done < self.total:
                parts.append(f"{format_duration((self.total - self.done) / rate)} left")
        shown = [item for item in self._metrics.items() if not item[0].startswith("time/")][:METRICS_SHOWN]
        parts += [f"{name} {value:.4g}" for name, value in shown]
        return ", ".join(parts)

    @abstractmethod
    def _show(self) -> None:
        """Brings what is shown up to date."""


class _TerminalBar(ProgressBar):
    def __init__(self, description: str, total: int, done: int, unit: str, bar: Progress) -> None:
        super().__init__(description, total, done, unit)
        self._bar = bar
        self._task: TaskID = bar.add_task(description, total=total, completed=done, state="")

    def _show(self) -> None:
        self._bar.update(self._task, completed=self.done, state=self.state())


class _LineBar(ProgressBar):
    def __init__(self, description: str, total: int, done: int, unit: str, console: Console) -> None:
        super().__init__(description, total, done, unit)
        self._console, self._last_line = console, self._started
        begins = f", continuing at {done}" if done else ""
        self._print(f"{total} {unit}s to do{begins}")

    def _show(self) -> None:
        now = time.monotonic()
        if self.done >= self.total or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._print(f"{self.done}/{self.total}, {self.state()}")

    def _print(self, text: str) -> None:
        self._console.print(f"{self.description}: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(
    description: str, total: int, done: int = 0, unit: str = "step", console: Console | None = None
) -> Iterator[ProgressBar]:
    """Shows the progress of `total` pieces of work on stderr, `done` of them finished by an earlier run.

    Args:
        description: what is being done, in a few words.
        total: pieces in all.
        done: pieces finished before; they do not count for the rate.
        unit: one piece, singular.
        console: where to show it instead of stderr.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _LineBar(description, total, done, unit, console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        yield _TerminalBar(description, total, done, unit, bar)


def format_duration(seconds: float) -> str:
    """A duration as a person says it: "42 s", "3 min 05 s", "2 h 07 min"."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
