"""Metrics of a run as JSON lines, append-only, readable by any tool while the run goes on."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vggrpo.config.errors import CorruptFileError
from vggrpo.io.atomic import write_text
from vggrpo.io.lines import append_line


def append_record(path: Path | str, step: int, metrics: Mapping[str, float | int | None]) -> None:
    """Appends {"step": step, **metrics} as one line; numbers that are not finite become null.

    Raises:
        ValueError: if a metric is called "step".
        DiskFullError: if the space runs out; the file keeps its complete lines.
    """
    append_values(path, step, {name: _json_number(value) for name, value in metrics.items()})


def append_values(path: Path | str, step: int, values: Mapping[str, Any]) -> None:
    """Appends {"step": step, **values}, whatever JSON can hold, as one line; errors as `append_record`."""
    if "step" in values:
        raise ValueError('a metric is called "step", which is the name of the record\'s own counter')
    append_line(path, json.dumps({"step": step, **values}, ensure_ascii=False, allow_nan=False))


def read_records(path: Path | str) -> list[dict[str, Any]]:
    """All records, none if there is no file; an incomplete last line of a killed process is ignored.

    Raises:
        CorruptFileError: if another line is no JSON record.
    """
    path = Path(path)
    if not path.exists():
        return []
    records = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            records.append({"step": int(record.pop("step")), **record})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptFileError(
                f"line {number} of {path} is not a metrics record: {line.decode(errors='replace')[:60]!r}"
            ) from error
    return records


def truncate_records(path: Path | str, step: int) -> None:
    """Drops the records whose step is greater than `step`, and an incomplete last line."""
    if not Path(path).exists():
        return
    kept = [record for record in read_records(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))


def _json_number(value: float | int | None) -> float | int | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
