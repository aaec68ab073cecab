import numpy as np
import pytest
import torch

from vggrpo.config import ConfigError, CorruptFileError
from vggrpo.data import VideoFolder
from vggrpo.data.videos import fit_frame
from vggrpo.io import write_video


def grey_video(path, count, fps=8.0, height=32, width=48):
    """Frame i is uniformly grey of brightness 8 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = (8 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    write_video(path, frames, fps=fps)


def numbers(clip):
    """Which frames of a grey video a clip consists of."""
    return [round(float(frame.mean()) * 255 / 8) for frame in clip.frames]


def test_clips_have_the_size_asked_for(tmp_path):
    grey_video(tmp_path / "b.mp4", 9)
    grey_video(tmp_path / "deep" / "a.mp4", 9, height=64, width=32)
    (tmp_path / "b.txt").write_text(" a grey wall \n")
    (tmp_path / "notes.md").write_text("no video")
    folder = VideoFolder(tmp_path, num_frames=5, height=16, width=24)
    assert [path.name for path in folder.paths] == ["b.mp4", "a.mp4"]
    clips = list(folder)
    assert [clip.caption for clip in clips] == ["a grey wall", ""]
    for clip in clips:
        assert clip.frames.shape == (5, 16, 24, 3)
        assert clip.frames.dtype == torch.float32
        assert numbers(clip) == [2, 3, 4, 5, 6]


def test_frames_are_thinned_out_to_the_rate_asked_for(tmp_path):
    grey_video(tmp_path / "a.mp4", 20, fps=24.0)
    assert numbers(VideoFolder(tmp_path, num_frames=5, height=16, width=24, fps=8.0)[0]) == [3, 6, 9, 12, 15]
    assert numbers(VideoFolder(tmp_path, num_frames=4, height=16, width=24, fps=16.0)[0]) == [7, 8, 10, 11]
    assert numbers(VideoFolder(tmp_path, num_frames=2, height=16, width=24)[0]) == [9, 10]


def test_frames_are_cropped_at_the_centre_and_keep_their_aspect():
    frame = np.zeros((40, 100, 3), np.uint8)
    frame[:, 30:70] = 200
    assert (fit_frame(frame, 20, 20) == 200).all()
    frame = np.zeros((100, 40, 3), np.uint8)
    frame[30:70] = 200
    assert (fit_frame(frame, 60, 60) == 200).all()


def test_averaging_frames_down_keeps_their_mean():
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    small = fit_frame(frame, 8, 8)
    expected = frame.reshape(8, 8, 8, 8, 3).mean((1, 3))
    assert np.abs(small - expected).max() <= 1


def test_a_rate_that_is_nearly_the_clips_loses_no_frame(tmp_path):
    grey_video(tmp_path / "film.mp4", 20, fps=23.976)
    assert numbers(VideoFolder(tmp_path, num_frames=5, height=16, width=24, fps=24.0)[0]) == [7, 8, 9, 10, 11]


def test_videos_that_are_too_short_are_named(tmp_path):
    grey_video(tmp_path / "short.mp4", 9)
    with pytest.raises(ConfigError, match=r"short.mp4 has 9 frames, but a clip of 17 at 8 .* spans 17"):
        VideoFolder(tmp_path, num_frames=17, height=16, width=24)[0]
    with pytest.raises(ConfigError, match=r"short.mp4 has 9 frames, but a clip of 5 at 2 .* spans 17"):
        VideoFolder(tmp_path, num_frames=5, height=16, width=24, fps=2.0)[0]
    with pytest.raises(ConfigError, match=r"short.mp4 has 8 frames per second, but clips need 16"):
        VideoFolder(tmp_path, num_frames=5, height=16, width=24, fps=16.0)[0]


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(CorruptFileError, match=r"text.mp4 is truncated or not a video file"):
        VideoFolder(tmp_path, num_frames=5, height=16, width=24)[0]
    (tmp_path / "text.mp4").unlink()
    rng = np.random.default_rng(0)
    write_video(tmp_path / "cut.mkv", rng.integers(0, 256, (40, 32, 48, 3), dtype=np.uint8), fps=8.0)
    content = (tmp_path / "cut.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 4])
    with pytest.raises((CorruptFileError, ConfigError), match=r"cut.mkv (is truncated|has \d+ frames)"):
        VideoFolder(tmp_path, num_frames=33, height=16, width=24)[0]


def test_unusable_folders_and_sizes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no video folder .*missing"):
        VideoFolder(tmp_path / "missing", num_frames=5, height=16, width=24)
    with pytest.raises(ConfigError, match=r"holds no videos"):
        VideoFolder(tmp_path, num_frames=5, height=16, width=24)
    with pytest.raises(ValueError, match=r"height is 0"):
        VideoFolder(tmp_path, num_frames=5, height=0, width=24)
    with pytest.raises(ValueError, match=r"fps is 0"):
        VideoFolder(tmp_path, num_frames=5, height=16, width=24, fps=0)
