"""Where prompts and real videos come from: files of the user's, or the procedural world."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vggrpo.config import ConfigError, LGMSettings, StitchSettings
from vggrpo.config.lgm import WORLD
from vggrpo.data import Prompt, VideoFolder, load_prompts, prompt_set_names
from vggrpo.world import render_clips, sample_scene


class VideoSource(Protocol):
    """Real clips by number; clip i is the same whatever is asked for before it."""

    def __len__(self) -> int:
        """Clips that there are."""

    def clip(self, index: int) -> Tensor:
        """Frames [T, H, W, 3] in [0, 1]."""

    def identity(self) -> str:
        """A hash that changes with the clips."""


class WorldVideos:
    """The first `count` clips of a split of the procedural world."""

    def __init__(self, split: str, count: int, num_frames: int, height: int, width: int) -> None:
        self._split, self._count = split, count
        self._num_frames, self._height, self._width = num_frames, height, width

    def __len__(self) -> int:
        return self._count

    def clip(self, index: int) -> Tensor:
        """Frames [T, H, W, 3] in [0, 1]."""
        scene = sample_scene(self._split, index)
        clips = render_clips([scene], num_frames=self._num_frames, height=self._height, width=self._width)
        return clips.frames[0]

    def identity(self) -> str:
        """A hash of the first scenes' descriptions."""
        return text_hash(repr(sample_scene(self._split, index)) for index in range(4))

    def is_shaky(self) -> list[bool]:
        """Of every clip, whether its camera shakes."""
        return [sample_scene(self._split, index).is_shaky for index in range(self._count)]


class FolderVideos:
    """`count` clips of a folder of videos, from number `start` on, at `fps` frames per second."""

    def __init__(
        self,
        folder: str,
        start: int,
        count: int,
        num_frames: int,
        height: int,
        width: int,
        fps: float | None,
    ) -> None:
        if not Path(folder).is_dir():
            raise ConfigError(f"there is no video folder {folder}; name yours with --real-videos")
        self._videos = VideoFolder(folder, num_frames=num_frames, height=height, width=width, fps=fps)
        if len(self._videos) < start + count:
            raise ConfigError(
                f"{start + count} real clips are asked for, but {folder} holds {len(self._videos)} videos; "
                "add videos, or lower real_clips, fit_clips and held_out_clips"
            )
        self._start, self._count = start, count

    def __len__(self) -> int:
        return self._count

    def clip(self, index: int) -> Tensor:
        """Frames [T, H, W, 3] in [0, 1]."""
        return self._videos[self._start + index].frames

    def identity(self) -> str:
        """A hash of the names and sizes of all files from the first clip on, however many are asked for."""
        files = self._videos.paths[self._start :]
        return text_hash(f"{file.name} {file.stat().st_size}" for file in files)


def open_videos(settings: StitchSettings, count: int, held_out: bool = False) -> VideoSource:
    """`count` real clips to train on, or to hold out.

    The world has a split for each. Of a folder the first `held_out_clips` videos are held out.

    Raises:
        ConfigError: if the folder is missing or holds too few videos.
    """
    raster = (settings.num_frames, settings.height, settings.width)
    if settings.real_videos == WORLD:
        return WorldVideos("validation" if held_out else "train", count, *raster)
    start = 0 if held_out else settings.held_out_clips
    return FolderVideos(settings.real_videos, start, count, *raster, settings.fps)


def video_batches(videos: VideoSource, start: int, batch_size: int) -> Iterator[Tensor]:
    """Frames [B, T, H, W, 3] of clips start, start + 1, ... to the end."""
    for first in range(start, len(videos), batch_size):
        yield torch.stack([videos.clip(i) for i in range(first, min(first + batch_size, len(videos)))])


def open_prompts(source: str, split: str, count: int | None = None, flag: str = "--prompts") -> list[Prompt]:
    """Prompts of a file or set (`load_prompts`), or the world's captions of `split`; the first `count`.

    `flag` is the one that names them, for messages.

    Raises:
        ConfigError: if the file is wrong, holds fewer prompts than asked for, or the world is asked for no
        number.
    """
    if source == WORLD:
        if count is None:
            raise ConfigError("the world has endless prompts; set how many to use")
        return world_prompts(split, count)
    if source not in prompt_set_names() and not Path(source).is_file():
        raise ConfigError(
            f"there is no prompt file {source}; name yours, .txt or .jsonl, with {flag}, or one of the sets "
            + ", ".join(prompt_set_names())
        )
    prompts = load_prompts(source)
    if count is not None and len(prompts) < count:
        raise ConfigError(f"{count} prompts are asked for, but {source} holds {len(prompts)}")
    return prompts[:count]


def num_held_out_videos(settings: LGMSettings) -> int:
    """Held-out real clips: of a folder `held_out_clips`; of the endless world as many as generated ones."""
    generated = num_held_out_generated(settings)
    return generated if settings.real_videos == WORLD else settings.held_out_clips


def num_held_out_generated(settings: LGMSettings) -> int:
    """Held-out generated clips: those of the gate, of which the first are measured during the training."""
    return max(settings.held_out_clips, settings.gate_clips)


def held_out_prompts(settings: LGMSettings) -> list[Prompt]:
    """Prompts of the held-out generated clips: the world's validation captions, or a file's first tenth."""
    if settings.prompts == WORLD:
        return open_prompts(WORLD, "validation", num_held_out_generated(settings))
    prompts = open_prompts(settings.prompts, "train", settings.num_prompts)
    return prompts[: _tenth(prompts)]


def training_prompts(settings: LGMSettings) -> list[Prompt]:
    """The prompts of the generated training clips: those that are not held out.

    Raises:
        ConfigError: if a file holds a single prompt.
    """
    prompts = open_prompts(settings.prompts, "train", settings.num_prompts)
    if settings.prompts == WORLD:
        return prompts
    if len(prompts) < 2:
        raise ConfigError(f"{settings.prompts} holds one prompt; at least two are needed, one to be held out")
    return prompts[_tenth(prompts) :]


def _tenth(prompts: Sequence[Prompt]) -> int:
    return max(1, len(prompts) // 10)


def require_disjoint(training: Sequence[Prompt], held_out: Sequence[Prompt]) -> None:
    """Makes sure that no held-out prompt is trained on.

    Raises:
        ConfigError: naming the first prompts that are.
    """
    texts = {" ".join(prompt.text.split()) for prompt in training}
    shared = [prompt.text for prompt in held_out if " ".join(prompt.text.split()) in texts]
    if shared:
        shown = "; ".join(shared[:3])
        raise ConfigError(
            f"{len(shared)} held-out prompts are also training prompts ({shown}): take them out of one file"
        )


def prompts_hash(prompts: Sequence[Prompt]) -> str:
    """A hash of the prompts in their order."""
    return text_hash(prompt.text for prompt in prompts)


def text_hash(texts: Iterable[str]) -> str:
    """SHA-256 over texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def world_prompts(split: str, count: int) -> list[Prompt]:
    """The first `count` different captions of a split, named by the clip that has them."""
    prompts: dict[str, Prompt] = {}
    index = 0
    while len(prompts) < count:
        scene = sample_scene(split, index)
        kind = "dynamic" if scene.is_dynamic else "static"
        prompts.setdefault(scene.caption, Prompt(f"{split}-{index}", scene.caption, kind))
        index += 1
    return list(prompts.values())
