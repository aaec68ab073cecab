"""Output folders as `vggrpo evaluate` writes them, with values of one's choice."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggrpo.evaluation.videos.summary import difference_rows, metric_rows
from vggrpo.io import write_json, write_video

NAN = float("nan")
FPS = 8.0
FRAMES = 9
NAMES = ("epipolar_robust_error", "feature_consistency", "flow_magnitude")


def write_clip(path: Path, brightness: int, frames: int = FRAMES, size: tuple[int, int] = (24, 32)) -> None:
    """A grey video that gets one step brighter with every frame."""
    steps = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    write_video(path, np.broadcast_to(brightness + steps, (frames, *size, 3)).copy(), FPS)


def make_records(
    values: Mapping[str, Sequence[float]], video: Path | None = None, seeds: int = 2, **changed: Any
) -> list[dict[str, Any]]:
    """A record for every entry of the columns: prompts p0, p1, ... with `seeds` seeds, every other static."""
    count = len(next(iter(values.values())))
    records = []
    for i in range(count):
        prompt, seed = divmod(i, seeds)
        name = f"p{prompt}_seed{seed}.mp4"
        metrics = {
            metric: None if np.isnan(column[i]) else float(column[i]) for metric, column in values.items()
        }
        records.append(
            {
                "clip": name,
                "path": str(video or Path("/nowhere") / name),
                "sha256": "0" * 64,
                "status": "ok",
                "reason": None,
                "prompt": f"a <b>red</b> box & number {prompt}",
                "prompt_id": f"p{prompt}",
                "seed": seed,
                "kind": ("static", "dynamic")[prompt % 2],
                "frames": FRAMES,
                "height": 24,
                "width": 32,
                "fps": FPS,
                "metrics": metrics,
                "notes": [],
                **changed,
            }
        )
    return records


def fail(record: dict[str, Any], reason: str) -> None:
    """Makes the record that of a clip that could not be measured."""
    record |= {"status": "failed", "reason": reason, "metrics": dict.fromkeys(record["metrics"])}
    record |= {"frames": 0, "height": 0, "width": 0, "fps": 0.0}


def write_evaluation(
    folder: Path,
    records: Sequence[dict[str, Any]],
    reference: Sequence[dict[str, Any]] | None = None,
    label: str = "ours",
    **changed: Any,
) -> Path:
    """Writes clips.jsonl and summary.json, and those of a reference called "base"; returns the folder."""
    names = list(records[0]["metrics"])
    summary: dict[str, Any] = {
        "command": f"vggrpo evaluate {label} --output '{folder}'",
        "settings": {"folder": label, "metrics": ["<tag>"]},
        "metric_settings": {"epipolar": {"step": 15}},
        "label": label,
        "num_clips": len(records),
        "num_failed": sum(record["status"] == "failed" for record in records),
        "metrics": metric_rows(records, names),
        "reference": None,
        "not_run": {"mvcs": "no --geometry-model was given"},
        "notes": [],
    }
    if reference is not None:
        write_evaluation(folder / "reference", reference, label="base")
        other = {(record["prompt_id"], record["seed"]): record for record in reference}
        pairs = [
            (record, other[key])
            for record in records
            if (key := (record["prompt_id"], record["seed"])) in other
        ]
        summary["reference"] = difference_rows(pairs, names)
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "clips.jsonl").write_text(lines, "utf-8")
    write_json(folder / "summary.json", summary | changed)
    return folder
