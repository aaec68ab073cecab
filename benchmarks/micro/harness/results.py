"""Result files: figures with everything that is needed to judge and repeat them, and their tables."""

import math
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from harness.options import Options
from vggrpo.config import Settings
from vggrpo.evaluation import Interval
from vggrpo.io import write_json, write_text
from vggrpo.training.report import machine_facts

ROOT = Path(__file__).resolve().parents[3]
Row = Sequence[str]


def write_result(
    name: str, options: Options, settings: Mapping[str, Any], figures: Mapping[str, Any], text: str
) -> Path:
    """Writes `<name>.json` and `<name>.md`, prints the text, and returns the JSON's path.

    Args:
        name: of the benchmark.
        options: of its command line.
        settings: what was run, by stage.
        figures: the results. Both may hold settings, dataclasses, mappings and lists of them; numbers that do
            not exist become null.
        text: the same as markdown.
    """
    path = options.results / f"{name}.json"
    result = {
        "benchmark": name,
        "command": shlex.join(["python", f"benchmarks/micro/{name}.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine_facts(),
        "settings": settings,
        "figures": figures,
    }
    write_text(path.with_suffix(".md"), text + "\n")
    write_json(path, plain(result))
    print(text)
    print(f"\n{path}")
    return path


def commit() -> str | None:
    """The commit that the code stands at, with "+" where the sources differ from it; None outside git."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "src", "benchmarks/micro"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def plain(value: Any) -> Any:
    """The same as JSON values, with None for numbers that do not exist."""
    if isinstance(value, Settings):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown_table(header: Row, rows: Sequence[Row]) -> str:
    """A markdown table whose columns are aligned as text too.

    Raises:
        ValueError: if a row has another length than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, but the header has {len(header)}: {list(row)}")
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def figure(interval: Interval, decimals: int = 3, signed: bool = False) -> str:
    """An interval as +0.012 [+0.003, +0.020], and of how many values where some are missing; without its ends
    where they are unknown, "-" where all is.
    """

    def number(value: float) -> str:
        return f"{value:{'+' if signed else ''}.{decimals}f}"

    if not math.isfinite(interval.mean):
        return "-"
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return number(interval.mean)
    of = f" of {interval.count}" if interval.missing else ""
    return f"{number(interval.mean)} [{number(interval.low)}, {number(interval.high)}]{of}"
