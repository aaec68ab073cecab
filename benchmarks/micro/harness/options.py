"""The command line that all benchmarks of the micro family have."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import tyro

from vggrpo.config import ConfigError, VggrpoError

RESULTS = Path(__file__).resolve().parents[2] / "results" / "micro"
QUICK_FOLDER = "quick"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every benchmark."""

    output: Path = Path("runs/benchmarks")
    """Folder of the runs. Benchmarks share it: none repeats a run or an evaluation of another."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings."""
    lgm: Path = Path("micro")
    """Latent geometry model of the policies: a folder, or the name of one that ships with the package."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""
    quick: bool = False
    """Tiny sizes, to see the script run: in `<output>/quick`, the results too. The figures mean nothing."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SystemExit(f"--seeds are {self.seeds}: give one or more, each once")

    @property
    def runs(self) -> Path:
        """Where the runs are."""
        return self.output / QUICK_FOLDER if self.quick else self.output

    @property
    def results(self) -> Path:
        """Where the result files are."""
        return self.runs / "results" if self.quick else RESULTS


@dataclass(frozen=True, kw_only=True)
class TableOptions(Options):
    """Options of a benchmark whose table can be run in part."""

    rows: tuple[str, ...] = ()
    """Groups of rows to run; all if empty."""


def only_seed(options: Options) -> int:
    """The seed of a benchmark that takes one.

    Raises:
        ConfigError: if there are several.
    """
    if len(options.seeds) > 1:
        raise ConfigError(f"--seeds are {options.seeds}, but this benchmark is of one seed; give one")
    return options.seeds[0]


class GroupedRow(Protocol):
    """A row of such a table."""

    @property
    def group(self) -> str:
        """The group that it is chosen by."""


RowT = TypeVar("RowT", bound=GroupedRow)


def chosen_rows(rows: Sequence[RowT], groups: Sequence[str]) -> list[RowT]:
    """The rows of some groups, or all.

    Raises:
        ConfigError: if there is no such group.
    """
    known = list(dict.fromkeys(row.group for row in rows))
    if unknown := [group for group in groups if group not in known]:
        raise ConfigError(f"--rows: there is no group {', '.join(unknown)}; groups are {', '.join(known)}")
    return [row for row in rows if not groups or row.group in groups]


OptionsT = TypeVar("OptionsT", bound=Options)


def parse(options: type[OptionsT], words: list[str] | None, description: str | None) -> OptionsT:
    """The options that the words of a command line ask for (of this process's, if None)."""
    return tyro.cli(options, args=words, description=description)


def run(main: Callable[[], int]) -> NoReturn:
    """Runs a script's `main` and exits; errors that a person can act on are shown as sentences."""
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        print("\nInterrupted. What is finished is kept; the same command does the rest.", file=sys.stderr)
        raise SystemExit(130) from None
    except VggrpoError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
