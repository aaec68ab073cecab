"""The results of a folder: one JSON object a clip, appended as clips finish, which is also what a resumed run
continues from."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vggrpo.config.errors import CorruptFileError
from vggrpo.evaluation.videos.base import Clip, Measured, MetricSet, as_utf8
from vggrpo.evaluation.videos.worker import Outcome, Task
from vggrpo.io import write_text
from vggrpo.io.lines import append_line

CLIPS_NAME = "clips.jsonl"

Record = dict[str, Any]
"""A line of the file. `metrics` and `notes` are what was asked for; `measured` holds, by the metric's name,
everything that was ever measured on the file with this hash: its fingerprint, values and notes."""


class ClipResults:
    """The file `clips.jsonl` of one folder. Of several lines about a clip the last one counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CLIPS_NAME

    def load(self) -> dict[str, Record]:
        """All records by clip name; an incomplete last line of a killed process is ignored.

        Raises:
            CorruptFileError: if another line is no record.
        """
        if not self.path.exists():
            return {}
        records: dict[str, Record] = {}
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                record = json.loads(line)
                records[record["clip"]] = record
            except (ValueError, KeyError, TypeError) as error:
                start = line.decode(errors="replace")[:60]
                raise CorruptFileError(
                    f"line {number} of {self.path} is no clip's record: {start!r}; remove it to measure the "
                    "clip again"
                ) from error
        return records

    def append(self, record: Record) -> None:
        """Adds a line, in place of an incomplete last one of a killed process.

        Raises:
            DiskFullError: if the space runs out; the file keeps its complete lines.
        """
        append_line(self.path, _line(record))

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replaces the file by these records, atomically."""
        write_text(self.path, "".join(f"{_line(record)}\n" for record in records))


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def task_of(record: Record | None, **clip: Any) -> Task:
    """The task of a clip of which an earlier run left this record, or none."""
    if record is None or record["status"] != "ok":
        return Task(**clip)
    known = {name: measured["fingerprint"] for name, measured in record["measured"].items()}
    return Task(**clip, sha256=record["sha256"], known=known)


def forget_prompts(records: Mapping[str, Record], clips: Sequence[Clip], metrics: MetricSet) -> None:
    """Drops from the records of an earlier call what was measured on clips whose prompt was another then."""
    names = [metric.name for metric in metrics.metrics if metric.uses_prompt]
    for clip in clips:
        record = records.get(clip.name)
        if record is not None and record["prompt"] != clip.prompt:
            for name in names:
                record["measured"].pop(name, None)


def record_of(outcome: Outcome, before: Record | None, metrics: MetricSet) -> Record:
    """The record of a clip as far as workers measured it, on top of what an earlier run left."""
    clip = outcome.clip
    record: Record = {
        "clip": clip.name,
        "path": as_utf8(str(clip.path.absolute())),
        "sha256": outcome.sha256,
        "status": "ok" if outcome.reason is None else "failed",
        "reason": outcome.reason,
        "prompt": clip.prompt,
        "prompt_id": clip.prompt_id,
        "seed": clip.seed,
        "kind": clip.kind,
    }
    kept = before if before is not None and before["sha256"] == outcome.sha256 else None
    if outcome.reused and kept is not None:
        record |= {name: kept[name] for name in ("frames", "height", "width", "fps", "file_notes")}
    else:
        record |= {
            "frames": outcome.num_frames,
            "height": outcome.height,
            "width": outcome.width,
            "fps": outcome.fps,
            "file_notes": list(outcome.notes),
        }
    record["clip_notes"] = list(clip.notes)
    record["measured"] = {} if kept is None else dict(kept["measured"])
    for metric in metrics.metrics:
        if metric.name in outcome.measured:
            add_measured(record, metric.name, metric.fingerprint, outcome.measured[metric.name])
    return complete(record, metrics)


def add_measured(record: Record, name: str, fingerprint: str, measured: Measured) -> None:
    """Adds one metric's values; those that are not finite become null."""
    record["measured"][name] = {
        "fingerprint": fingerprint,
        "values": {key: value if math.isfinite(value) else None for key, value in measured.values.items()},
        "notes": list(measured.notes),
    }


def complete(record: Record, metrics: MetricSet) -> Record:
    """The record with `metrics` and `notes` as they follow from what was measured."""
    values: dict[str, float | None] = dict.fromkeys(metrics.value_names)
    notes = [*record["clip_notes"], *record["file_notes"]]
    for metric in metrics.metrics:
        found: Mapping[str, Any] | None = record["measured"].get(metric.name)
        if found is not None and found["fingerprint"] == metric.fingerprint:
            values |= found["values"]
            notes += [f"{metric.name}: {note}" for note in found["notes"]]
    return record | {"metrics": values, "notes": notes}


def column(records: Sequence[Record], name: str) -> list[float]:
    """One metric [N]; NaN where a clip failed or could not be measured."""
    values = (record["metrics"].get(name) for record in records)
    return [float("nan") if value is None else float(value) for value in values]
