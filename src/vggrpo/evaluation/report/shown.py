"""Video files as small clips for a page: one size, one frame rate, bounded length and memory."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from vggrpo.config.errors import CorruptFileError
from vggrpo.evaluation.evaluated import EvaluatedClip
from vggrpo.evaluation.report.media import video_uri

Frames = NDArray[np.uint8]

SHOWN_HEIGHT = 288
MOST_FRAMES = 121
"""Of a shown clip; longer ones are cut, which the page says."""
MOST_FPS = 24.0
QUALITY = 26
"""x264's constant rate factor: visibly compressed only where one looks for it."""


def read_shown(path: Path, box: tuple[int, int], fps: float, length: int, file_fps: float = 0.0) -> Frames:
    """The beginning of a video, fitted into `box` on black, [length, H, W, 3].

    Frames are picked by time, so that clips of different frame rates run at their own speed; a shorter clip
    rests on the last frame that was picked. Frames that are not shown are not kept.

    Args:
        path: the video.
        box: height and width, even.
        fps: frames per second of what is shown.
        length: frames of what is shown.
        file_fps: frames per second of the file; 0 takes frame by frame.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it cannot be decoded, or has no frames.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no video file {path}")
    step = file_fps / fps if file_fps > 0 else 1.0
    wanted = [int(place * step + 1e-6) for place in range(length)]
    shown: list[Frames] = []
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise CorruptFileError(f"{path} has no video stream")
            for number, frame in enumerate(container.decode(container.streams.video[0])):
                repeats = wanted.count(number)
                if repeats:
                    shown += [_fit(frame.to_ndarray(format="rgb24"), box)] * repeats
                if len(shown) == length:
                    break
    except av.error.FFmpegError as error:
        raise CorruptFileError(f"{path} is truncated or not a video file ({error.strerror})") from error
    if not shown:
        raise CorruptFileError(f"{path} contains no frames")
    return np.stack([*shown, *[shown[-1]] * (length - len(shown))])


def beside_each_other(clips: Sequence[EvaluatedClip], fps: float, length: int) -> str:
    """The beginnings of clips in one picture, from left to right, so always in step, as a data URI.

    Every clip has the same box, as wide as the widest needs.

    Raises:
        FileNotFoundError: if a file is not there any more, or none was kept.
        CorruptFileError: if one cannot be decoded.
    """
    box = shown_box([(clip.height, clip.width) for clip in clips])
    frames = []
    for clip in clips:
        if clip.path is None:
            raise FileNotFoundError(f"no video of {clip.name} was kept")
        frames.append(read_shown(clip.path, box, fps, length, clip.fps))
    return video_uri(np.concatenate(frames, axis=2), fps, crf=QUALITY)


def shown_box(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Height and width, even, that hold videos of these sizes (height, width) at the height of the page."""
    widest = max(width / height for height, width in sizes)
    return SHOWN_HEIGHT, max(2, round(SHOWN_HEIGHT * widest / 2) * 2)


def common_fps(clips: Sequence[EvaluatedClip]) -> float:
    """The frame rate of most clips, at most MOST_FPS."""
    known = Counter(clip.fps for clip in clips if clip.fps > 0)
    return min(known.most_common(1)[0][0], MOST_FPS) if known else 8.0


def shown_frames(clip: EvaluatedClip, fps: float) -> int:
    """How many frames at `fps` the whole clip fills."""
    return max(1, round(clip.frames * (fps / clip.fps if clip.fps > 0 else 1.0)))


def with_size(clip: EvaluatedClip) -> EvaluatedClip:
    """The clip with size, length and frame rate, read from its file if they are not known.

    Raises:
        FileNotFoundError: if there is no file.
        CorruptFileError: if it is no video.
    """
    if clip.width:
        return clip
    if clip.path is None or not clip.path.is_file():
        raise FileNotFoundError(f"no video of {clip.name} was kept")
    try:
        with av.open(clip.path) as container:
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 0)
            return replace(
                clip, width=stream.width, height=stream.height, frames=stream.frames or MOST_FRAMES, fps=fps
            )
    except (av.error.FFmpegError, IndexError) as error:
        raise CorruptFileError(f"{clip.path} is truncated or not a video file ({error})") from error


def _fit(image: Frames, box: tuple[int, int]) -> Frames:
    height, width = box
    scale = min(height / image.shape[0], width / image.shape[1])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=method)
    return canvas
