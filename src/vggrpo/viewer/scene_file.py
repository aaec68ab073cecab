"""One video's 4D scene as it is saved, exported and viewed: geometry, colours, times and rewards."""

import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vggrpo.config.errors import ConfigError, CorruptFileError
from vggrpo.geometry import SceneGeometry
from vggrpo.io import atomic_file, load_metadata, load_tensors, save_tensors

FORMAT = "vggrpo scene"
FORMAT_VERSION = 1
SUFFIXES = (".safetensors", ".npz")
COLOURS_KEY, METADATA_KEY = "colours", "metadata"


@dataclass(frozen=True)
class RewardRecord:
    """What a reward says about a scene."""

    value: float
    """Higher is better; NaN where the reward could not be computed."""
    parts: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    """What the value is made of: a number, or one number for each view ("view_error", "overlap"); NaN where a
    view could not be measured. Names are those of `vggrpo.rewards`."""
    note: str | None = None
    """Why there is no value, where there is none."""


@dataclass(frozen=True, eq=False)
class Scene4D:
    """The scene of one video: T views on one raster of H x W pixels.

    Raises:
        ValueError: if a shape, a dtype or a number does not fit the others.
    """

    geometry: SceneGeometry
    """A batch of one, [1, T, ...]. Conventions are those of `SceneGeometry`: OpenCV axes, scene units."""
    colours: Tensor
    """[T, H, W, 3] uint8 RGB, of each view's own pixels."""
    fps: float
    """Frames per second of the video."""
    frame_indices: tuple[int, ...]
    """The video frame, counted from 0, that each of the T views shows; ascending."""
    label: str = ""
    """A short name for people: the video's file name, "before", "after"."""
    prompt: str | None = None
    """What the video was made from, if known."""
    rewards: Mapping[str, RewardRecord] = field(default_factory=dict)
    """By name; empty if none was computed."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """How the scene was made, for the record (files, models, where the colours are from); fit for JSON."""

    def __post_init__(self) -> None:
        batch, views, height, width = self.geometry.depth_z.shape
        if batch != 1:
            raise ValueError(f"geometry holds {batch} videos, but a scene is of one; use geometry.take(i)")
        if self.colours.dtype != torch.uint8 or self.colours.shape != (views, height, width, 3):
            raise ValueError(
                f"colours are {self.colours.dtype} {list(self.colours.shape)}, but uint8 "
                f"[{views}, {height}, {width}, 3] was expected: a picture for each view, on its raster"
            )
        if not (self.fps > 0 and math.isfinite(self.fps)):
            raise ValueError(f"fps is {self.fps}, but a positive number of frames per second was expected")
        order = self.frame_indices
        if len(order) != views or order[0] < 0 or any(b <= a for a, b in pairwise(order)):
            raise ValueError(f"frame_indices are {order}, but {views} ascending frame numbers were expected")

    @property
    def num_views(self) -> int:
        """T."""
        return self.geometry.num_views

    @property
    def times(self) -> list[float]:
        """The time of each view in the video, in seconds."""
        return [frame / self.fps for frame in self.frame_indices]


def save_scene(path: Path | str, scene: Scene4D) -> None:
    """Writes a scene without loss and atomically; `load_scene` reads it.

    The file holds the fields of `SceneGeometry` that the scene has, without their batch dimension
    (`depth_z` [T, H, W], ...), `colours` [T, H, W, 3], and JSON metadata: the other fields of `Scene4D`.

    Args:
        path: a .safetensors file (any floating dtype, metadata in its header), or an .npz file for numpy
            (not bfloat16, metadata as a string under "metadata").
        scene: on any device.

    Raises:
        ConfigError: if the suffix is another.
        ValueError: if an .npz file cannot hold the dtype.
        DiskFullError: if the space runs out.
    """
    path = Path(path)
    tensors = {name: tensor.detach()[0].cpu() for name, tensor in scene.geometry.as_dict().items()}
    tensors[COLOURS_KEY] = scene.colours.cpu()
    metadata = _metadata(scene)
    if _suffix(path) == ".safetensors":
        save_tensors(path, tensors, metadata)
        return
    if scene.geometry.dtype == torch.bfloat16:
        raise ValueError("the scene is in bfloat16, which numpy does not have; save it as .safetensors")
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    arrays[METADATA_KEY] = np.array(json.dumps(metadata))
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_scene(path: Path | str) -> Scene4D:
    """The scene in a file by `save_scene`, on the CPU.

    Raises:
        ConfigError: if the suffix is neither .safetensors nor .npz.
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is damaged, no scene, or of a format version that is not known here.
    """
    path = Path(path)
    if _suffix(path) == ".safetensors":
        metadata, tensors = load_metadata(path), load_tensors(path)
    else:
        metadata, tensors = _read_npz(path)
    if metadata.get("format") != FORMAT:
        raise CorruptFileError(f"{path} holds no 4D scene; `vggrpo reconstruct` writes one")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise CorruptFileError(
            f"{path} has format version {metadata.get('format_version')}, but this version of vggrpo reads "
            f"{FORMAT_VERSION}; install the version that wrote it, or reconstruct the scene again"
        )
    try:
        colours = tensors.pop(COLOURS_KEY)
        geometry = SceneGeometry.from_dict({name: tensor[None] for name, tensor in tensors.items()})
        return Scene4D(
            geometry,
            colours,
            float(metadata["fps"]),
            tuple(map(int, metadata["frame_indices"])),
            str(metadata["label"]),
            metadata["prompt"],
            {name: _reward_from_json(value) for name, value in metadata["rewards"].items()},
            metadata["source"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CorruptFileError(f"{path} is damaged: {error}; reconstruct the scene again") from error


def distinct_labels(labels: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Labels that tell scenes apart: their own, or if two are the same, what differs in their files' paths.

    Of a/x/scene.npz and b/x/scene.npz these are a and b; two scenes of one file are numbered.

    Args:
        labels: of the scenes.
        paths: of their files.
    """
    if len(set(labels)) == len(labels):
        return list(labels)
    for parts in zip(*(reversed(path.resolve().parts) for path in paths), strict=False):
        if len(set(parts)) == len(parts):
            return [part.removesuffix(Path(part).suffix).removesuffix(".scene") for part in parts]
    return [f"{label or 'scene'} ({number})" for number, label in enumerate(labels, 1)]


def _suffix(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path} is no scene file: its name should end in {' or '.join(SUFFIXES)}")
    return path.suffix


def _metadata(scene: Scene4D) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fps": scene.fps,
        "frame_indices": list(scene.frame_indices),
        "label": scene.label,
        "prompt": scene.prompt,
        "rewards": {name: _reward_to_json(reward) for name, reward in scene.rewards.items()},
        "source": dict(scene.source),
    }


def _read_npz(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no scene file {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        metadata = json.loads(str(arrays.pop(METADATA_KEY, "{}")))
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError) as error:
        raise CorruptFileError(f"{path} is damaged or no .npz file ({error}); get a fresh copy") from error
    return (metadata if isinstance(metadata, dict) else {}), tensors


def _reward_to_json(reward: RewardRecord) -> dict[str, Any]:
    """Numbers that are not finite become null."""

    def number(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    parts = {
        name: [number(one) for one in part] if isinstance(part, tuple) else number(part)
        for name, part in reward.parts.items()
    }
    return {"value": number(reward.value), "parts": parts, "note": reward.note}


def _reward_from_json(value: Mapping[str, Any]) -> RewardRecord:
    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    parts = {
        name: tuple(number(one) for one in part) if isinstance(part, list) else number(part)
        for name, part in value["parts"].items()
    }
    return RewardRecord(number(value["value"]), parts, value["note"])
