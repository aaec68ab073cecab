"""Clips whose geometry is known exactly: of the procedural world, or of a folder of rendered ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vggrpo.config import ClipSettings, ConfigError, CorruptFileError, EvaluateGeometrySettings
from vggrpo.config.lgm import WORLD
from vggrpo.geometry import SceneGeometry, valid_depth
from vggrpo.io import file_sha256, load_metadata, load_tensors, read_video
from vggrpo.world import render_clips, sample_scene
from vggrpo.world.export import clip_name

GEOMETRY_SUFFIX, VIDEO_SUFFIX = ".safetensors", ".mp4"
FPS_OF_WORLD = 8.0
CLIPS_OF_WORLD = 64
"""How many are measured if nobody says."""


@dataclass(frozen=True, eq=False)
class ExactClip:
    """A clip with the geometry of all its frames."""

    frames: Tensor
    """[1, T, H, W, 3] in [0, 1]."""
    geometry: SceneGeometry
    """A batch of one, of the same T frames and raster."""
    facts: dict[str, Any]
    """What results say about a clip beside its values: path, sha256, prompt, prompt_id, seed, kind, fps."""


class ExactClips(Protocol):
    """Clips by number."""

    names: Sequence[str]

    def load(self, numbers: Sequence[int]) -> Iterator[ExactClip | str]:
        """The clips, or the reason why one cannot be used, in the order of `numbers`."""

    def sha256(self, number: int) -> str | None:
        """Of a clip's video; None where there is no file, or it is missing."""

    def identity(self) -> dict[str, Any]:
        """What determines clips without files, for JSON."""


class WorldExactClips:
    """The first `count` clips of a split of the procedural world."""

    def __init__(self, split: str, count: int, raster: ClipSettings) -> None:
        self._split, self._raster = split, raster
        self.names: Sequence[str] = [clip_name(split, index) for index in range(count)]

    def load(self, numbers: Sequence[int]) -> Iterator[ExactClip | str]:
        """Rendered together."""
        specs = [sample_scene(self._split, number) for number in numbers]
        clips = render_clips(specs, **self._raster.model_dump())
        for row, (number, spec) in enumerate(zip(numbers, specs, strict=True)):
            facts = {
                "path": None,
                "sha256": None,
                "prompt": spec.caption,
                "prompt_id": self.names[number],
                "seed": None,
                "kind": "dynamic" if spec.is_dynamic else "static",
                "fps": FPS_OF_WORLD,
            }
            one = slice(row, row + 1)
            yield ExactClip(clips.frames[one], clips.geometry.take(one), facts)

    def sha256(self, number: int) -> str | None:
        """Rendered clips have no file."""
        return None

    def identity(self) -> dict[str, Any]:
        """The split and the raster."""
        return {"world": self._split, **self._raster.model_dump()}


class FolderExactClips:
    """The clips of a folder as `vggrpo world render` writes it, in the order of their names.

    Raises:
        ConfigError: if there is no such folder, or it holds fewer clips than asked for, or none.
    """

    def __init__(self, folder: Path, count: int | None) -> None:
        if not folder.is_dir():
            raise ConfigError(
                f"clips is {folder}, which is neither world nor a folder; `vggrpo world render` makes one"
            )
        found = sorted(folder.glob(f"*{GEOMETRY_SUFFIX}"))
        if not found:
            raise ConfigError(f"{folder} holds no exact geometry (*{GEOMETRY_SUFFIX} beside *{VIDEO_SUFFIX})")
        if count is not None and count > len(found):
            raise ConfigError(f"num_clips is {count}, but {folder} holds {len(found)} clips; ask for fewer")
        self._files = found[:count]
        self.names: Sequence[str] = [path.stem for path in self._files]

    def load(self, numbers: Sequence[int]) -> Iterator[ExactClip | str]:
        """One after the other."""
        for number in numbers:
            try:
                yield read_exact_clip(self._files[number])
            except (CorruptFileError, FileNotFoundError) as error:
                yield str(error)

    def sha256(self, number: int) -> str | None:
        """See `ExactClips`."""
        video = self._files[number].with_suffix(VIDEO_SUFFIX)
        return file_sha256(video) if video.is_file() else None

    def identity(self) -> dict[str, Any]:
        """The files tell."""
        return {}


def open_exact_clips(settings: EvaluateGeometrySettings) -> ExactClips:
    """The clips that settings ask for.

    Raises:
        ConfigError: if there are none, or too few.
    """
    if settings.clips == WORLD:
        return WorldExactClips(settings.split, settings.num_clips or CLIPS_OF_WORLD, settings.raster)
    return FolderExactClips(Path(settings.clips), settings.num_clips)


def read_exact_clip(geometry_file: Path) -> ExactClip:
    """A clip by its file of geometry, which stands beside the video.

    Raises:
        FileNotFoundError: if there is no video beside it.
        CorruptFileError: if a file is damaged, holds something else, or the two do not fit each other.
    """
    video = geometry_file.with_suffix(VIDEO_SUFFIX)
    pixels, fps = read_video(video)
    record = load_metadata(geometry_file)
    try:
        geometry = SceneGeometry.from_dict(load_tensors(geometry_file))
    except ValueError as error:
        raise CorruptFileError(f"{geometry_file} holds no scene's geometry: {error}") from error
    raster = (geometry.batch_size, geometry.num_views, geometry.height, geometry.width)
    if raster != (1, *pixels.shape[:3]):
        raise CorruptFileError(
            f"{geometry_file} is for {raster[1]} frames of {raster[2]}x{raster[3]}, but {video.name} has "
            f"{len(pixels)} of {pixels.shape[1]}x{pixels.shape[2]}"
        )
    if not bool(valid_depth(geometry.depth_z).any()):
        raise CorruptFileError(f"{geometry_file} has no depth that is finite and positive")
    dynamic = record.get("is_dynamic")
    facts = {
        "path": str(video.absolute()),
        "sha256": file_sha256(video),
        "prompt": record.get("caption"),
        "prompt_id": geometry_file.stem,
        "seed": None,
        "kind": None if dynamic is None else "dynamic" if dynamic else "static",
        "fps": fps,
    }
    return ExactClip(torch.from_numpy(pixels)[None].float() / 255, geometry, facts)
