"""Progress of long work: a bar with rate and remaining time on a terminal, occasional lines elsewhere."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 30.0
METRICS_SHOWN = 4


class ProgressBar(ABC):
    """Counts finished pieces of work. Made by `progress`."""

    def __init__(self, description: str, total: int, done: int, unit: str) -> None:
        self.description, self.total, self.done, self.unit = description, total, done, unit
        self._first, self._started = done, time.monotonic()
        self._metrics: dict[str, float] = {}
        self._phase = ""

    def advance(self, count: int = 1, /, **metrics: float) -> None:
        """Adds `count` finished pieces; `metrics` are the latest figures; the first few are shown."""
        self.done += count
        self._metrics.update(metrics)
        self._phase = ""
        self._show()

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        """What is being done for the piece that is not finished yet, and how far that is."""
        self._phase = f"{name} {done}/{total}" if total else name
        self._show()

    def pace(self) -> list[str]:
        """Rate and remaining time, as far as they can be told."""
        elapsed = time.monotonic() - self._started
        if self.done <= self._first or elapsed <= 0:
            return []
        rate = (self.done - self._first) / elapsed
        parts = [f"{rate:.3g} {self.unit}/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}"]
        if self.done < self.total:
            parts.append(f"{format_duration((self.total - self.done) / rate)} left")
        return parts

    def state(self) -> str:
        """Phase, rate, remaining time and the latest figures in words."""
        shown = [item for item in self._metrics.items() if not item[0].startswith("time/")][:METRICS_SHOWN]
        figures = [f"{name} {value:.4g}" for name, value in shown]
        return ", ".join([*([self._phase] if self._phase else []), *self.pace(), *figures])

    @abstractmethod
    def _show(self) -> None:
        """Brings what is shown up to date."""


class _Panel(Progress):
    """A bar with a table beneath it, if there is one."""

    table: Table | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.table is not None:
            yield self.table


class _TerminalBar(ProgressBar):
    def __init__(
        self,
        description: str,
        total: int,
        done: int,
        unit: str,
        bar: _Panel,
        compared: Mapping[str, float] | None,
    ) -> None:
        super().__init__(description, total, done, unit)
        self._bar, self._compared = bar, compared
        self._task: TaskID = bar.add_task(description, total=total, completed=done, state="")

    def _show(self) -> None:
        if self._compared is None:
            state = self.state()
        else:
            state = ", ".join(self.pace())
            self._bar.table = metric_table(self._phase, self._metrics, self._compared)
        self._bar.update(self._task, completed=self.done, state=state)


def metric_table(phase: str, metrics: Mapping[str, float], compared: Mapping[str, float]) -> Table:
    """The phase and all metrics, a line for each first part of their names, beside their change.

    Args:
        phase: in words.
        metrics: the latest ones, as "policy/kl" or "reward/camera_motion/mean".
        compared: earlier values of some of them; those named "time/..." are not compared.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    groups: dict[str, list[str]] = {"now": [phase]} if phase else {}
    for name, value in metrics.items():
        group, _, rest = name.partition("/")
        text = f"{rest.removesuffix('/mean').replace('_', ' ')} {value:.4g}"
        if group == "time":
            text += " s"
        elif name in compared:
            text += f" ({value - compared[name]:+.2g})"
        groups.setdefault(group, []).append(text)
    for group, texts in groups.items():
        # Texts as they are: a name in brackets is no markup.
        table.add_row(group, Text("   ".join(texts)))
    return table


class _LineBar(ProgressBar):
    def __init__(self, description: str, total: int, done: int, unit: str, console: Console) -> None:
        super().__init__(description, total, done, unit)
        self._console, self._last_line = console, self._started
        begins = f", continuing at {done}" if done else ""
        self._print(f"{total} {unit}s to do{begins}")

    def _show(self) -> None:
        now = time.monotonic()
        finished = self.done >= self.total and not self._phase
        if finished or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._print(f"{self.done}/{self.total}, {self.state()}")

    def _print(self, text: str) -> None:
        self._console.print(f"{self.description}: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(
    description: str,
    total: int,
    done: int = 0,
    unit: str = "step",
    console: Console | None = None,
    compared: Mapping[str, float] | None = None,
) -> Iterator[ProgressBar]:
    """Shows the progress of `total` pieces of work on stderr, `done` of them finished by an earlier run.

    Args:
        description: what is being done, in a few words.
        total: pieces in all.
        done: pieces finished before; they do not count for the rate.
        unit: one piece, singular.
        console: where to show it instead of stderr.
        compared: on a terminal, show all metrics beneath the bar, with their change from these; an empty
            mapping compares none.
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
    with _Panel(*columns, console=console) as bar:
        yield _TerminalBar(description, total, done, unit, bar, compared)


def format_duration(seconds: float) -> str:
    """A duration as a person says it: "42 s", "3 min 05 s", "2 h 07 min"."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
