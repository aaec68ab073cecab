"""RGB videos as H.264 files. The same frames give the same bytes on the same build of the encoder."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vggrpo.config.errors import ConfigError, CorruptFileError
from vggrpo.io.atomic import atomic_file

ENCODER = "libx264"

if TYPE_CHECKING:
    import torch

    Frames = np.ndarray[Any, np.dtype[np.uint8]] | torch.Tensor


def check_video_writing(height: int, width: int) -> None:
    """Makes sure, before any work, that `write_video` can write frames of this size here.

    Raises:
        ConfigError: if PyAV's FFmpeg has no H.264 encoder, or a side is odd.
    """
    import av

    for name, side in (("height", height), ("width", width)):
        if side % 2:
            raise ConfigError(f"{name} is {side}, but yuv420p video needs an even one")
    try:
        av.codec.Codec(ENCODER, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise ConfigError(
            f"the FFmpeg that PyAV uses here has no encoder {ENCODER}, without which no .mp4 can be written; "
            "install PyAV's own wheel, which has it: pip install --force-reinstall --only-binary av av"
        ) from error


def write_video(path: Path | str, frames: "Frames", fps: float, crf: int = 17) -> None:
    """Writes frames as H.264 (yuv420p, BT.709), atomically and reproducibly.

    Args:
        path: the file; its suffix (.mp4, .mkv, .mov) chooses the container.
        frames: uint8 RGB [T, H, W, 3], numpy or torch; H and W even.
        fps: frames per second, > 0.
        crf: x264's constant rate factor, 0 (lossless in the coded colours) to 51 (worst).

    Raises:
        TypeError: if the frames are not uint8.
        ValueError: if the shape, a side, fps or crf is unusable.
        DiskFullError: if the space runs out.
    """
    import av
    from av.video.reformatter import ColorRange, Colorspace

    array = _as_uint8_rgb(frames)
    if not fps > 0:
        raise ValueError(f"fps is {fps}; expected a positive number of frames per second")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is {crf}; expected 0 (best) to 51 (worst)")
    _, height, width, _ = array.shape
    # More threads change the encoder's decisions, and on small frames so does its macroblock tree from run to
    # run; bitexact keeps versions and dates out of the file.
    encoder = {"crf": str(crf), "threads": "1", "x264-params": "mbtree=0"}
    with (
        atomic_file(path) as temporary,
        av.open(temporary, "w", options={"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream(ENCODER, rate=Fraction(fps).limit_denominator(1001), options=encoder)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        for image in array:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=_exact_conversion(),
                threads=1,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read_video(path: Path | str) -> tuple["np.ndarray[Any, np.dtype[np.uint8]]", float]:
    """All frames of a video file as uint8 RGB [T, H, W, 3], and its frames per second.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is no video, has no frames, or fewer than its header announces.
        ConfigError: if PyAV's FFmpeg has no decoder for it.
    """
    import av

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no video file {path}")
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise CorruptFileError(f"{path} has no video stream; give a file that shows something")
            stream = container.streams.video[0]
            announced, fps = stream.frames, float(stream.average_rate or 0)
            frames = list(_decode(container, stream))
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        raise CorruptFileError(
            f"{path} is truncated or not a video file ({error.strerror}); get a fresh copy, or give a video"
        ) from error
    except av.error.DecoderNotFoundError as error:
        raise ConfigError(
            f"the FFmpeg that PyAV uses here has no decoder for {path}; re-encode it, ffmpeg -i {path.name} "
            "-c:v libx264 new.mp4, or install PyAV's own wheel: pip install --force-reinstall --only-binary "
            "av av"
        ) from error
    if not frames:
        raise CorruptFileError(f"{path} contains no frames; get a fresh copy, or make the video again")
    if len(frames) < announced:
        raise CorruptFileError(
            f"{path} is truncated: {len(frames)} of its {announced} frames can be read; get a fresh copy, or "
            "make the video again"
        )
    return np.stack(frames), fps


def _decode(container: Any, stream: Any) -> Iterator["np.ndarray[Any, np.dtype[np.uint8]]"]:
    for frame in container.decode(stream):
        yield frame.to_ndarray(format="rgb24", interpolation=_exact_conversion(), threads=1)


def _exact_conversion() -> int:
    """Colour conversion that rounds instead of truncating and is the same on every processor."""
    from av.video.reformatter import Interpolation

    exact = Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
    return Interpolation.BILINEAR | exact | Interpolation.FULL_CHR_H_INP


def _as_uint8_rgb(frames: "Frames") -> "np.ndarray[Any, np.dtype[np.uint8]]":
    array = frames if isinstance(frames, np.ndarray) else frames.detach().cpu().numpy()
    if array.dtype != np.uint8:
        raise TypeError(
            f"frames are {array.dtype}; expected uint8 (multiply frames in [0, 1] by 255 and round)"
        )
    if array.ndim != 4 or array.shape[3] != 3:
        raise ValueError(f"frames have shape {tuple(array.shape)}; expected [T, H, W, 3]")
    if array.shape[0] == 0:
        raise ValueError("frames are empty; a video needs at least one frame")
    for name, side in (("height", array.shape[1]), ("width", array.shape[2])):
        if side == 0 or side % 2:
            raise ValueError(f"the {name} of the frames is {side}; yuv420p video needs an even one")
    return np.ascontiguousarray(array)
