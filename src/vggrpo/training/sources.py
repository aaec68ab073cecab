"""Where prompts and real videos come from: files of the user's, or the procedural world."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vggrpo.config import ConfigError
from vggrpo.data import Prompt, VideoFolder, load_prompts
from vggrpo.world import render_clips, sample_scene

WORLD = "world"
"""The name of the procedural world where settings ask for prompts or videos."""


class VideoSource(Protocol):
    """Real clips by number; clip i is the same whatever is asked for before it."""

    def __len__(self) -> int:
        """Clips that there are."""

    def clip(self, index: int) -> Tensor:
        """Frames [T, H, W, 3] in [0, 1]."""


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


class FolderVideos:
    """The first `count` clips of a folder of videos."""

    def __init__(self, folder: str, count: int, num_frames: int, height: int, width: int) -> None:
        if not Path(folder).is_dir():
            raise ConfigError(f"there is no video folder {folder}; name yours with --real-videos")
        self._videos = VideoFolder(folder, num_frames=num_frames, height=height, width=width)
        if len(self._videos) < count:
            raise ConfigError(
                f"{count} real clips are asked for, but {folder} holds {len(self._videos)} videos; "
                "add videos, or lower real_clips and held_out_clips"
            )
        self._count = count

    def __len__(self) -> int:
        return self._count

    def clip(self, index: int) -> Tensor:
        """Frames [T, H, W, 3] in [0, 1]."""
        return self._videos[index].frames


def open_videos(source: str, count: int, num_frames: int, height: int, width: int) -> VideoSource:
    """`count` real clips of the training split of the world, or of a folder.

    Raises:
        ConfigError: if the folder is missing or holds too few videos.
    """
    if source == WORLD:
        return WorldVideos("train", count, num_frames, height, width)
    return FolderVideos(source, count, num_frames, height, width)


def video_batches(videos: VideoSource, start: int, batch_size: int) -> Iterator[Tensor]:
    """Frames [B, T, H, W, 3] of clips start, start + 1, ... to the end."""
    for first in range(start, len(videos), batch_size):
        yield torch.stack([videos.clip(i) for i in range(first, min(first + batch_size, len(videos)))])


def open_prompts(source: str, split: str, count: int | None = None, flag: str = "--prompts") -> list[Prompt]:
    """Prompts of a file, or the world's captions of `split`; the first `count` of them.

    `flag` is the one that names them, for messages.

    Raises:
        ConfigError: if the file is wrong, holds fewer prompts than asked for, or the world is asked for no
        number.
    """
    if source == WORLD:
        if count is None:
            raise ConfigError("the world has endless prompts; set how many to use")
        return world_prompts(split, count)
    if not Path(source).is_file():
        raise ConfigError(f"there is no prompt file {source}; name yours, .txt or .jsonl, with {flag}")
    prompts = load_prompts(source)
    if count is not None and len(prompts) < count:
        raise ConfigError(f"{count} prompts are asked for, but {source} holds {len(prompts)}")
    return prompts[:count]


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
