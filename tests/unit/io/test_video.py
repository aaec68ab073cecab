from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vggrpo.config import ConfigError, CorruptFileError
from vggrpo.io import read_video, write_video


def gradient_clip(num_frames: int = 9, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth colours that change over time: uint8 [T, H, W, 3]."""
    rows, columns = np.mgrid[:height, :width]
    frames = [np.stack([columns * 3, rows * 4, np.full_like(rows, 20 * t)], -1) for t in range(num_frames)]
    return np.stack(frames).astype(np.uint8)


@pytest.mark.parametrize("fps", [8, 24000 / 1001, 0.5])
def test_round_trip_keeps_frames_rate_and_colours(tmp_path: Path, fps: float) -> None:
    frames = gradient_clip()
    write_video(tmp_path / "a.mp4", frames, fps, crf=0)
    loaded, loaded_fps = read_video(tmp_path / "a.mp4")
    assert loaded.shape == frames.shape
    assert loaded.dtype == np.uint8
    assert loaded_fps == pytest.approx(fps, rel=1e-6)
    error = loaded.astype(float) - frames
    assert np.abs(error).mean() < 1.5  # 4:2:0 chroma of a gradient
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 2


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (17, 200, 90)])
def test_flat_colours_survive(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    frames = np.broadcast_to(np.array(colour, np.uint8), (3, 32, 32, 3))
    write_video(tmp_path / "a.mp4", frames, 8)
    loaded, _ = read_video(tmp_path / "a.mp4")
    assert np.abs(loaded.astype(int) - frames).max() <= 2


def test_same_frames_make_the_same_bytes_from_numpy_and_torch(tmp_path: Path) -> None:
    frames = gradient_clip()
    write_video(tmp_path / "a.mp4", frames, 8)
    write_video(tmp_path / "b.mp4", torch.from_numpy(frames), 8)
    write_video(tmp_path / "c.mp4", np.asfortranarray(frames), 8)
    contents = {(tmp_path / name).read_bytes() for name in ("a.mp4", "b.mp4", "c.mp4")}
    assert len(contents) == 1


def test_file_says_how_to_show_it(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", gradient_clip(), 8)
    with av.open(tmp_path / "a.mp4") as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (int(context.colorspace), int(context.color_range)) == (1, 1)  # BT.709, limited


def test_smaller_crf_is_closer(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    errors = []
    for crf in (0, 30, 51):
        write_video(tmp_path / "a.mp4", frames, 8, crf=crf)
        errors.append(np.abs(read_video(tmp_path / "a.mp4")[0].astype(int) - frames).mean())
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("num_frames", [1, 2])
def test_shortest_videos(tmp_path: Path, num_frames: int) -> None:
    write_video(tmp_path / "a.mp4", gradient_clip(num_frames), 8)
    assert read_video(tmp_path / "a.mp4")[0].shape[0] == num_frames


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), TypeError, "frames are float32; expected uint8"),
        (np.zeros((2, 8, 8), np.uint8), ValueError, r"shape \(2, 8, 8\); expected \[T, H, W, 3\]"),
        (np.zeros((2, 3, 8, 8), np.uint8), ValueError, "expected"),
        (np.zeros((0, 8, 8, 3), np.uint8), ValueError, "at least one frame"),
        (np.zeros((2, 7, 8, 3), np.uint8), ValueError, "height of the frames is 7"),
        (np.zeros((2, 8, 9, 3), np.uint8), ValueError, "width of the frames is 9"),
    ],
)
def test_unusable_frames(tmp_path: Path, frames: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        write_video(tmp_path / "a.mp4", frames, 8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fps", "crf", "message"), [(0, 17, "fps is 0"), (float("nan"), 17, "fps is nan"), (8, 52, "crf is 52")]
)
def test_unusable_settings(tmp_path: Path, fps: float, crf: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", gradient_clip(2), fps, crf)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated_mp4(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, gradient_clip(), 8)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        CorruptFileError, match=r"a\.mp4 is truncated or not a video file .*; get a fresh copy"
    ):
        read_video(path)


def test_a_codec_without_a_decoder(tmp_path: Path) -> None:
    """As for a build of FFmpeg without one: the codec's four letters are nobody's."""
    path = tmp_path / "a.mp4"
    write_video(path, gradient_clip(), 8)
    content = path.read_bytes()
    assert content.count(b"avc1") == 2  # a brand of the file, then the kind of its samples
    path.write_bytes(content[: content.rindex(b"avc1")] + b"zzz9" + content[content.rindex(b"avc1") + 4 :])
    with pytest.raises(ConfigError, match=r"no decoder for .*a\.mp4; re-encode it, ffmpeg -i .*install PyAV"):
        read_video(path)


def test_file_that_lost_frames(tmp_path: Path) -> None:
    """An index at the front survives a truncation, so that the header still announces all frames."""
    path = tmp_path / "a.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)
    with av.open(path, "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CorruptFileError, match=r"a\.mp4 is truncated"):
        read_video(path)


def test_no_video_inside(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.wav", "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(CorruptFileError, match="has no video stream"):
        read_video(tmp_path / "a.wav")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no video file"):
        read_video(tmp_path / "a.mp4")
