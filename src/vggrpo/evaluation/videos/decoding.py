"""Video files to frames, as evaluators of the field decode them, with a reason for whatever is wrong."""

from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vggrpo.config.errors import CorruptFileError
from vggrpo.evaluation.videos.base import Video

UNEVEN_INTERVALS = 0.05
"""Relative spread of the times between frames above which the frame rate counts as variable."""


def decode_clip(path: Path, max_bytes: int | None = None) -> tuple[Video, tuple[str, ...]]:
    """All frames of a file's first video stream, and what is unusual about them.

    Colours are converted by FFmpeg's default, not by the exact conversion of `read_video`: the faithful
    epipolar error is that of other evaluators only on the pixels that they see.

    Args:
        path: the file.
        max_bytes: largest size of the decoded frames; None is no limit.

    Raises:
        FileNotFoundError, PermissionError: if the file cannot be opened.
        CorruptFileError: if it is no video, is truncated, has no frames or only one, frames of several sizes,
            or more of them than `max_bytes` holds.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no video file {path.name}")
    images: list[NDArray[np.uint8]] = []
    times: list[float | None] = []
    held = 0
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise CorruptFileError("has no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            announced, fps = stream.frames, float(stream.average_rate or 0)
            for frame in container.decode(stream):
                image = frame.to_ndarray(format="rgb24", threads=1)
                if images and image.shape != images[0].shape:
                    raise CorruptFileError(_sizes(images[0], image, len(images)))
                held += image.nbytes
                if max_bytes is not None and held > max_bytes:
                    raise CorruptFileError(
                        f"its frames need more than {max_bytes / 1e9:.3g} GB; raise --max-clip-gigabytes, or "
                        "cut or shrink the video"
                    )
                images.append(image)
                times.append(frame.time)
        if 0 < len(images) < announced:
            _require_whole(path, len(images), announced)
    except av.error.PermissionError as error:
        raise PermissionError(f"cannot be read ({error.strerror})") from error
    except av.error.EOFError as error:
        raise CorruptFileError("contains no frames") from error
    except av.error.FFmpegError as error:
        raise CorruptFileError(f"is truncated or not a video file ({error.strerror})") from error
    if not images:
        raise CorruptFileError("contains no frames")
    if len(images) == 1:
        raise CorruptFileError("has one frame; a video needs at least two")
    return Video(np.stack(images), fps), _timing_notes(times)


def _require_whole(path: Path, decoded: int, announced: int) -> None:
    """Tells frames that the file does not show from frames that are missing.

    The header also counts the frames that an edit list hides, as a cut without encoding leaves one behind.
    They lie in the file nevertheless: a file is whole if it has as many packets as announced, edit list or
    not, and every packet that is shown gave a frame.

    Raises:
        CorruptFileError: if packets are missing, or could not be decoded.
    """
    if _num_packets(path, {"ignore_editlist": "1"}) < announced:
        raise CorruptFileError(f"is truncated: {decoded} of its {announced} frames can be read")
    shown = _num_packets(path)
    if decoded < shown:
        raise CorruptFileError(f"is damaged: {decoded} of its {shown} frames can be read")


def _num_packets(path: Path, options: dict[str, str] | None = None) -> int:
    """Complete packets of the first video stream that are shown."""
    with av.open(path, options=options) as container:
        packets = container.demux(container.streams.video[0])
        return sum(p.size > 0 and not p.is_corrupt and not p.is_discard for p in packets)


def _sizes(first: NDArray[Any], other: NDArray[Any], number: int) -> str:
    return (
        f"changes its size: frame 0 has {first.shape[1]}x{first.shape[0]} pixels, frame {number} has "
        f"{other.shape[1]}x{other.shape[0]}"
    )


def _timing_notes(times: list[float | None]) -> tuple[str, ...]:
    known = [time for time in times if time is not None]
    if len(known) < 3:
        return ()
    steps = np.diff(known)
    low, high = float(steps.min()), float(steps.max())
    # Containers round times to their own ticks, at worst a millisecond.
    if high - low <= max(UNEVEN_INTERVALS * float(np.median(steps)), 2.1e-3):
        return ()
    return (
        f"variable frame rate: frames are {1000 * low:.3g} to {1000 * high:.3g} ms apart, and metrics count "
        "them as evenly spaced",
    )
