"""Histograms of a run as JSON lines, beside its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vggrpo.config.errors import CorruptFileError
from vggrpo.io.metrics import append_values, read_records


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each of N bins."""

    edges: tuple[float, ...]
    """[N + 1], ascending."""
    counts: tuple[float, ...]
    """[N]."""

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1 or list(self.edges) != sorted(set(self.edges)):
            raise ValueError(
                f"a histogram of {len(self.counts)} counts has {len(self.edges)} edges; expected one more "
                "than counts, ascending"
            )

    @property
    def total(self) -> float:
        """Number of values."""
        return sum(self.counts)


def append_histograms(path: Path | str, step: int, histograms: Mapping[str, Histogram]) -> None:
    """Appends {"step": step, name: {"edges": [...], "counts": [...]}, ...} as one line.

    Raises:
        DiskFullError: if the space runs out; the file keeps its complete lines.
    """
    values = {name: {"edges": one.edges, "counts": one.counts} for name, one in histograms.items()}
    append_values(path, step, values)


def read_histograms(path: Path | str) -> list[tuple[int, dict[str, Histogram]]]:
    """All histograms by step and name, none if there is no file.

    Raises:
        CorruptFileError: if a line is no record of histograms.
    """
    found = []
    for record in read_records(path):
        step = record.pop("step")
        try:
            histograms = {
                name: Histogram(tuple(one["edges"]), tuple(one["counts"])) for name, one in record.items()
            }
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(f"{path} holds no histograms at step {step}: {error}") from error
        found.append((step, histograms))
    return found
