"""Prompts and real clips, from the world and from folders."""

import pytest
import torch

from vggrpo.config import ConfigError
from vggrpo.io import write_video
from vggrpo.training.sources import open_prompts, open_videos, video_batches, world_prompts
from vggrpo.world import sample_scene

SIZE = {"num_frames": 5, "height": 8, "width": 8}


@pytest.fixture
def folder(tmp_path):
    """Three videos of 7 frames, each of one grey."""
    for number, level in enumerate((40, 120, 200)):
        frames = torch.full((7, 16, 16, 3), level, dtype=torch.uint8)
        write_video(tmp_path / f"{number}.mp4", frames, 8)
    return tmp_path


def test_a_world_clip_is_the_same_whatever_comes_before_it():
    videos = open_videos("world", 5, **SIZE)
    assert len(videos) == 5
    batches = list(video_batches(videos, 0, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    late = torch.cat(list(video_batches(videos, 3, 8)))
    assert torch.equal(torch.cat(batches)[3:], late)
    assert torch.equal(late[1], videos.clip(4))
    assert late.shape == (2, 5, 8, 8, 3)
    assert 0 <= late.min() < late.max() <= 1


def test_a_folders_clips_are_in_the_order_of_their_names(folder):
    videos = open_videos(str(folder), 3, **SIZE)
    frames = torch.cat(list(video_batches(videos, 1, 2)))
    assert frames.shape == (2, 5, 8, 8, 3)
    torch.testing.assert_close(
        frames.mean(dim=(1, 2, 3, 4)), torch.tensor([120, 200]) / 255, rtol=0, atol=0.02
    )


def test_too_few_videos_are_counted(folder):
    with pytest.raises(ConfigError, match=r"4 real clips are asked for, but .* holds 3 videos; add videos"):
        open_videos(str(folder), 4, **SIZE)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no video folder .*nothing"):
        open_videos(str(tmp_path / "nothing"), 1, **SIZE)


def test_world_prompts_differ_and_name_their_scene():
    prompts = world_prompts("train", 40)
    assert len({p.text for p in prompts}) == len({p.id for p in prompts}) == 40
    assert prompts[:10] == world_prompts("train", 10)
    for prompt in prompts:
        scene = sample_scene("train", int(prompt.id.removeprefix("train-")))
        assert prompt.text == scene.caption
        assert prompt.kind == ("dynamic" if scene.is_dynamic else "static")


def test_held_out_prompts_are_none_of_the_training_prompts():
    training = {p.text for p in open_prompts("world", "train", 100)}
    assert not training & {p.text for p in open_prompts("world", "validation", 100)}


def test_the_world_needs_a_number():
    with pytest.raises(ConfigError, match="endless prompts; set how many"):
        open_prompts("world", "train")


def test_a_file_gives_its_first_prompts(tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("one red box\ntwo red boxes\nthree red boxes\n")
    assert [p.text for p in open_prompts(str(file), "train", 2)] == ["one red box", "two red boxes"]
    assert len(open_prompts(str(file), "train")) == 3
    with pytest.raises(ConfigError, match=r"4 prompts are asked for, but .* holds 3"):
        open_prompts(str(file), "train", 4)


def test_a_misspelt_source_is_not_taken_for_a_prompt():
    with pytest.raises(ConfigError, match=r"wrold is no prompt file: expected .txt"):
        open_prompts("wrold", "train", 1)
