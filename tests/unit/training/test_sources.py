"""Prompts and real clips, from the world and from folders."""

import pytest
import torch

from vggrpo.config import ConfigError, LGMSettings
from vggrpo.data import Prompt
from vggrpo.io import write_video
from vggrpo.training.sources import (
    held_out_prompts,
    open_prompts,
    open_videos,
    require_disjoint,
    training_prompts,
    video_batches,
    world_prompts,
)
from vggrpo.world import sample_scene


def settings(real_videos="world", **changes):
    values = {
        "output": "unused",
        "base_model": "micro",
        "geometry_model": "micro",
        "num_frames": 5,
        "height": 8,
        "width": 8,
        "real_videos": str(real_videos),
        "held_out_clips": 1,
        "prompts": "world",
        "cfg_scale": 1.0,
    }
    return LGMSettings.model_validate(values | changes)


@pytest.fixture
def folder(tmp_path):
    """Three videos of 7 frames, each of one grey."""
    for number, level in enumerate((40, 120, 200)):
        frames = torch.full((7, 16, 16, 3), level, dtype=torch.uint8)
        write_video(tmp_path / f"{number}.mp4", frames, 8)
    return tmp_path


def test_a_world_clip_is_the_same_whatever_comes_before_it():
    videos = open_videos(settings("world"), 5)
    assert len(videos) == 5
    batches = list(video_batches(videos, 0, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    late = torch.cat(list(video_batches(videos, 3, 8)))
    assert torch.equal(torch.cat(batches)[3:], late)
    assert torch.equal(late[1], videos.clip(4))
    assert late.shape == (2, 5, 8, 8, 3)
    assert 0 <= late.min() < late.max() <= 1


def test_clips_of_a_folder_are_at_the_settings_rate(tmp_path):
    levels = torch.arange(12, dtype=torch.uint8).mul(20).view(12, 1, 1, 1).expand(12, 16, 16, 3)
    for name in ("held out", "other"):
        write_video(tmp_path / f"{name}.mp4", levels, 16)
    every, second = (open_videos(settings(tmp_path, fps=fps), 1).clip(0) for fps in (None, 8.0))
    assert (255 * second.mean(dim=(1, 2, 3)).diff()).mean() == pytest.approx(40, abs=4)
    assert (255 * every.mean(dim=(1, 2, 3)).diff()).mean() == pytest.approx(20, abs=4)


def test_held_out_world_clips_are_of_another_split():
    training, held_out = (open_videos(settings("world"), 2, held_out=flag) for flag in (False, True))
    assert not torch.equal(training.clip(0), held_out.clip(0))
    assert training.identity() != held_out.identity()


def test_a_folders_first_clips_are_held_out_and_the_rest_in_the_order_of_their_names(folder):
    greys = {
        flag: torch.stack(
            [frames.mean() for frames in next(video_batches(open_videos(settings(folder), n, flag), 0, 4))]
        )
        for flag, n in ((True, 1), (False, 2))
    }
    torch.testing.assert_close(greys[True], torch.tensor([40]) / 255, rtol=0, atol=0.02)
    torch.testing.assert_close(greys[False], torch.tensor([120, 200]) / 255, rtol=0, atol=0.02)


def test_a_folders_identity_changes_with_its_files(folder):
    before = open_videos(settings(folder), 2).identity()
    assert open_videos(settings(folder), 2).identity() == before
    write_video(folder / "2.mp4", torch.zeros(9, 16, 16, 3, dtype=torch.uint8), 8)
    assert open_videos(settings(folder), 2).identity() != before


def test_too_few_videos_are_counted(folder):
    with pytest.raises(ConfigError, match=r"4 real clips are asked for, but .* holds 3 videos; add videos"):
        open_videos(settings(folder), 3)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"there is no video folder .*nothing; name yours with --real-videos"
    ):
        open_videos(settings(tmp_path / "nothing"), 1)


def test_prompts_in_both_sets_are_refused():
    prompts = [Prompt.from_text(text) for text in ("a red box", "a blue box", "a  red box")]
    require_disjoint(prompts[:1], prompts[1:2])
    with pytest.raises(ConfigError, match="1 held-out prompts are also training prompts"):
        require_disjoint(prompts[:1], prompts[1:])


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
    with pytest.raises(ConfigError, match=r"there is no prompt file wrold; name yours"):
        open_prompts("wrold", "train", 1)


def lgm_settings(prompts, num_prompts=None):
    values = settings("world").model_dump() | {"prompts": str(prompts), "num_prompts": num_prompts}
    return LGMSettings.model_validate(values | {"cfg_scale": 1.0})


def test_a_tenth_of_a_files_prompts_is_held_out(tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("\n".join(f"scene number {i}" for i in range(25)))
    held_out, training = (
        choose(lgm_settings(file, num_prompts=20)) for choose in (held_out_prompts, training_prompts)
    )
    assert [p.text for p in held_out + training] == [f"scene number {i}" for i in range(20)]
    assert len(held_out) == 2


def test_a_single_prompt_cannot_be_shared_out(tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("only one\n")
    with pytest.raises(ConfigError, match="holds one prompt; at least two are needed"):
        training_prompts(lgm_settings(file))
