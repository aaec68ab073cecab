"""Real videos: a folder of files as clips of one size."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from vggrpo.config.errors import ConfigError, CorruptFileError

RATE_TOLERANCE = 0.03
"""Share by which a video may fall short of a clip's frame rate: 23.976 is 24."""
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm")


@dataclass(frozen=True, eq=False)
class VideoClip:
    """A clip cut from a video file."""

    path: Path
    frames: Tensor
    """[T, H, W, 3], float32 in [0, 1]."""
    caption: str
    """The text of the .txt file beside the video; "" if there is none."""


class VideoFolder:
    """The videos below a folder, sorted by path, each giving one clip from its middle.

    Frames are cropped at the centre to the clip's aspect ratio and resized. Only the frames that are used are
    converted, one at a time, so long videos need little memory.
    """

    def __init__(
        self, folder: Path | str, *, num_frames: int, height: int, width: int, fps: float | None = None
    ) -> None:
        """Finds the files; reads none.

        Args:
            folder: searched with its sub-folders for .mp4, .mov, .mkv and .webm.
            num_frames: frames of a clip.
            height, width: of a clip, in pixels.
            fps: frames per second of a clip, at most a video's own; None keeps every frame of each video.

        Raises:
            ConfigError: if the folder is missing or holds no videos.
            ValueError: if a size is not positive.
        """
        for name, value in (("num_frames", num_frames), ("height", height), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        if fps is not None and not fps > 0:
            raise ValueError(f"fps is {fps}, expected a positive number or None")
        if not Path(folder).is_dir():
            raise ConfigError(f"there is no video folder {folder}")
        self.paths = sorted(
            path
            for path in Path(folder).rglob("*")
            if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
        )
        if not self.paths:
            raise ConfigError(f"{folder} holds no videos ({', '.join(VIDEO_SUFFIXES)})")
        self.num_frames, self.height, self.width, self.fps = num_frames, height, width, fps

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[VideoClip]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> VideoClip:
        """The clip of video `index`.

        Raises:
            CorruptFileError: if the file cannot be decoded.
            ConfigError: if the video is too short for a clip.
        """
        path = self.paths[index]
        caption_file = path.with_suffix(".txt")
        caption = caption_file.read_text("utf-8").strip() if caption_file.is_file() else ""
        return VideoClip(path, self._read(path), caption)

    def _read(self, path: Path) -> Tensor:
        try:
            with av.open(path) as container:
                if not container.streams.video:
                    raise CorruptFileError(f"{path} has no video stream")
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                count, own_fps = _count_frames(path, stream), float(stream.average_rate or 0)
                wanted = self._frame_numbers(path, count, own_fps)
                frames = [
                    fit_frame(frame.to_ndarray(format="rgb24"), self.height, self.width)
                    for frame in _pick(container.decode(stream), wanted)
                ]
        except av.error.FFmpegError as error:
            raise CorruptFileError(f"{path} is truncated or not a video file ({error.strerror})") from error
        if len(frames) < self.num_frames:
            raise CorruptFileError(
                f"{path} is truncated: its header announces frame {wanted[len(frames)]}, which cannot be read"
            )
        return torch.from_numpy(np.stack(frames)).float() / 255.0

    def _frame_numbers(self, path: Path, count: int, own_fps: float) -> list[int]:
        """Numbers of the frames that the clip takes from the middle of a video of `count` frames."""
        step = 1.0 if self.fps is None else own_fps / self.fps
        if step < 1.0 - RATE_TOLERANCE:
            raise ConfigError(
                f"{path} has {own_fps:g} frames per second, but clips need {self.fps:g}: lower fps or remove "
                "the video"
            )
        step = max(step, 1.0)
        # Rounded down evenly, and not to one frame less where 2.9999999 means 3.
        offsets = [int(i * step + 1e-6) for i in range(self.num_frames)]
        span = offsets[-1] + 1
        if count < span:
            raise ConfigError(
                f"{path} has {count} frames, but a clip of {self.num_frames} at "
                f"{self.fps or own_fps:g} frames per second spans {span}: shorten the clips or remove the "
                "video"
            )
        start = (count - span) // 2
        return [start + offset for offset in offsets]


def fit_frame(frame: np.ndarray[Any, Any], height: int, width: int) -> np.ndarray[Any, Any]:
    """A frame [H, W, 3] cropped at the centre to the aspect ratio height : width and resized to it."""
    source_height, source_width = frame.shape[:2]
    scale = min(source_height / height, source_width / width)
    crop_height, crop_width = max(round(height * scale), 1), max(round(width * scale), 1)
    top, left = (source_height - crop_height) // 2, (source_width - crop_width) // 2
    cropped = frame[top : top + crop_height, left : left + crop_width]
    interpolation = cv2.INTER_AREA if scale >= 1.0 else cv2.INTER_LINEAR
    return cv2.resize(cropped, (width, height), interpolation=interpolation)


def _count_frames(path: Path, stream: Any) -> int:
    """Frames of a video by its header, or by counting its packets where the header does not say."""
    if stream.frames:
        return int(stream.frames)
    with av.open(path) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def _pick(frames: Iterator[Any], numbers: list[int]) -> Iterator[Any]:
    """The frames of these increasing numbers; stops decoding after the last."""
    wanted = iter(numbers)
    target = next(wanted)
    for number, frame in enumerate(frames):
        if number == target:
            yield frame
            following = next(wanted, None)
            if following is None:
                return
            target = following
