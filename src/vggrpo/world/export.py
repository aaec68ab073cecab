"""Clips of the world as files: video, exact geometry, caption.

train_000000.mp4           the frames
train_000000.txt           the caption
train_000000.safetensors   `SceneGeometry.from_dict(load_tensors(path))`, batch of one; metadata: the record
clips.jsonl                all records, one a line, written when every clip is there
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vggrpo.io import load_metadata, save_tensors, write_text, write_video
from vggrpo.world.rendering import WorldClips
from vggrpo.world.specs import SceneSpec

RECORDS_NAME = "clips.jsonl"


def clip_name(split: str, index: int) -> str:
    """The stem of a clip's files."""
    return f"{split}_{index:06d}"


def is_exported(folder: Path, split: str, index: int) -> bool:
    """Whether all files of a clip are there."""
    return (folder / f"{clip_name(split, index)}.safetensors").is_file()


def clip_record(spec: SceneSpec, fps: float) -> dict[str, Any]:
    """What a clip shows, as JSON."""
    return {
        "name": clip_name(spec.split, spec.index),
        "split": spec.split,
        "index": spec.index,
        "caption": spec.caption,
        "is_dynamic": spec.is_dynamic,
        "is_shaky": spec.is_shaky,
        "camera": spec.camera.family,
        "objects": [{"shape": thing.shape, "motion": thing.motion} for thing in spec.objects],
        "fps": fps,
    }


def export_clips(folder: Path, specs: Sequence[SceneSpec], clips: WorldClips, fps: float) -> None:
    """Writes the files of rendered clips, the geometry last: where it is, the others are too."""
    pixels = clips.frames.mul(255).round().byte()
    for place, spec in enumerate(specs):
        name = clip_name(spec.split, spec.index)
        write_video(folder / f"{name}.mp4", pixels[place], fps)
        write_text(folder / f"{name}.txt", spec.caption + "\n")
        tensors = clips.geometry.take(slice(place, place + 1)).as_dict()
        save_tensors(folder / f"{name}.safetensors", tensors, clip_record(spec, fps))


def write_records(folder: Path, split: str, indices: Sequence[int]) -> None:
    """Collects the records of exported clips in `clips.jsonl`."""
    records = (load_metadata(folder / f"{clip_name(split, index)}.safetensors") for index in indices)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    write_text(folder / RECORDS_NAME, "".join(lines))
