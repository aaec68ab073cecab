"""Which files `vggrpo score` takes, what it records of a scene, and what it draws."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vggrpo.config import ConfigError, CorruptFileError
from vggrpo.evaluation.catalogue import describe
from vggrpo.evaluation.scoring import SceneView, find_scored_clips, read_latents, score_names, score_scene
from vggrpo.evaluation.scoring.plot import plot_scores
from vggrpo.evaluation.scoring.run import plot_path
from vggrpo.geometry import SceneGeometry
from vggrpo.io import save_tensors, write_json
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.world import render_clips, sample_scene

REWARDS = {"camera_motion": CameraMotionReward(), "reprojection": ReprojectionReward.robust()}


@pytest.fixture
def scene() -> SceneGeometry:
    clips = render_clips([sample_scene("test", 1)], views="keys", height=24, width=32, supersample=1)
    return clips.geometry


def names(folder: Path, space: str, *paths: Path) -> list[str]:
    return [clip.name for clip in find_scored_clips(paths or (folder,), space)]


def test_a_folder_gives_each_clip_once_in_the_form_that_the_space_prefers(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b_seed3.mp4", "a.mp4", "sub/c.MOV", ".hidden.mp4", "notes.txt"):
        (tmp_path / name).touch()
    save_tensors(tmp_path / "b_seed3.safetensors", {"latents": torch.zeros(1)})
    save_tensors(tmp_path / "z.safetensors", {"latents": torch.zeros(1)})
    save_tensors(tmp_path / "a.safetensors", {"depth_z": torch.zeros(1)})
    save_tensors(tmp_path / "b_seed3.scene.safetensors", {"latents": torch.zeros(1)})
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    write_json(tmp_path / "b_seed3.json", {"prompt": "a box", "prompt_id": "b", "seed": 3, "kind": "static"})
    common = ["a.mp4", "b_seed3.safetensors", "broken.safetensors", "sub/c.MOV", "z.safetensors"]
    assert names(tmp_path, "latent") == common
    assert names(tmp_path, "rgb") == [n.replace("b_seed3.safetensors", "b_seed3.mp4") for n in common]
    clip = find_scored_clips([tmp_path], "latent")[1]
    assert (clip.prompt, clip.prompt_id, clip.seed, clip.kind) == ("a box", "b", 3, "static")


def test_files_are_taken_as_they_are_named_and_once(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.mp4").touch()
    first, second = tmp_path / "one" / "a.mp4", tmp_path / "two" / "a.mp4"
    assert names(tmp_path, "rgb", first, second, first) == ["a.mp4", second.as_posix()]
    assert names(tmp_path, "rgb", tmp_path / "missing.mp4") == ["missing.mp4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty holds neither videos"):
        find_scored_clips([tmp_path / "empty"], "rgb")
    with pytest.raises(ConfigError, match=r"x\.txt is neither a folder, nor a video"):
        find_scored_clips([tmp_path / "x.txt"], "rgb")


def test_a_name_is_given_once_and_its_picture_lies_in_the_output(tmp_path, monkeypatch):
    for name in ("one/B/x.mp4", "A/x.mp4", "B/x.mp4", "run/x.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "run")
    paths = [Path("../one"), Path("x.mp4"), tmp_path / "A" / "x.mp4", Path("../B/x.mp4")]
    found = names(tmp_path, "rgb", *paths)
    assert found == ["B/x.mp4", "x.mp4", (tmp_path / "A" / "x.mp4").as_posix(), "../B/x.mp4"]
    monkeypatch.chdir(tmp_path)
    again = names(tmp_path, "rgb", Path("one"), Path("A/x.mp4"), Path("B/x.mp4"))
    assert again == ["B/x.mp4", "x.mp4", (tmp_path / "B" / "x.mp4").as_posix()]
    output = tmp_path / "scores"
    plots = [(output / plot_path(name)).resolve() for name in found]
    assert len(set(plots)) == 4
    assert all(plot.is_relative_to(output / "plots") and plot.name.startswith("x.mp4") for plot in plots)
    assert plots[0] == output / "plots" / "B" / "x.mp4.png"


def test_a_name_that_is_not_utf8_is_escaped_and_cannot_be_used(tmp_path):
    (tmp_path / os.fsdecode(b"a\xff.mp4")).touch()
    (clip,) = find_scored_clips([tmp_path], "rgb")
    assert clip.name == "a\\udcff.mp4"
    assert clip.unusable == "its path is not UTF-8, which results are written in; rename it"


def test_files_without_latents_are_named(tmp_path):
    path = tmp_path / "x.safetensors"
    for tensors, message in (
        ({"depth": torch.zeros(1)}, r"x\.safetensors holds depth, but no `latents`"),
        ({"latents": torch.zeros(3, 4)}, r"latents of shape \[3, 4\], expected \[C, T, H, W\]"),
        ({"latents": torch.zeros(2, 4, 3, 2, 2)}, "of one video"),
        ({"latents": torch.full((4, 3, 2, 2), torch.nan)}, "latents that are not finite"),
    ):
        save_tensors(path, tensors)
        with pytest.raises(CorruptFileError, match=message):
            read_latents(path)
    save_tensors(path, {"latents": torch.ones(4, 3, 2, 2)}, {"model": {"autoencoder": "abc"}, "fps": 12})
    saved = read_latents(path)
    assert (saved.latents.shape, saved.autoencoder, saved.fps) == ((1, 4, 3, 2, 2), "abc", 12.0)


def test_a_record_holds_the_rewards_and_all_their_parts(scene):
    record, scored = score_scene(scene, REWARDS, "latent")
    metrics, views = record["metrics"], record["views"]
    assert tuple(metrics) == score_names(list(REWARDS), "latent")
    assert all(describe(name).name == name for name in metrics)
    motion, geometry = scored["camera_motion"], scored["reprojection"]
    assert metrics["lgm/camera_motion"] == motion.value.item()
    e_trans, e_rot = metrics["camera_motion/e_trans"], metrics["camera_motion/e_rot"]
    assert metrics["lgm/camera_motion"] == pytest.approx(0.5 * (1 / (1 + e_trans) + 1 / (1 + e_rot)))
    error = metrics["reprojection/reprojection_error"]
    assert metrics["lgm/reprojection"] == pytest.approx(1 / (1 + error))
    assert error == pytest.approx(np.mean(sorted(e for e in views["error"] if e is not None)[-3:]))
    assert views["valid"] == geometry.parts["view_valid"][0].tolist()
    assert metrics["reprojection/valid_view_share"] == pytest.approx(np.mean(views["valid"]))
    assert metrics["reprojection/overlap"] == pytest.approx(np.mean(views["overlap"]))
    assert "teacher/camera_motion" in score_scene(scene, REWARDS, "rgb")[0]["metrics"]
    assert record["notes"] == []


def test_what_cannot_be_scored_is_null_with_a_note(scene):
    assert (
        "taken for static"
        in score_scene(replace(scene, scene_flow_from_ref=None), REWARDS, "rgb")[0]["notes"][0]
    )
    short, scored = score_scene(scene.select([0, 1]), REWARDS, "rgb")
    assert short["metrics"]["teacher/camera_motion"] is None
    assert "camera_motion: scene has 2 views" in short["notes"][0]
    assert list(scored) == ["reprojection"]
    broken = replace(scene, depth_z=scene.depth_z.clone())
    broken.depth_z[0, 0, 0, 0] = torch.nan
    record, scored = score_scene(broken, REWARDS, "rgb")
    assert not scored
    assert set(record["metrics"].values()) == {None}
    assert len(record["notes"]) == 2
    # Views apart from each other: the camera is scored, and what the views share is known to be nothing.
    apart = replace(scene, world_points=scene.world_points + 1e4)
    record, _ = score_scene(apart, REWARDS, "rgb")
    assert record["metrics"]["teacher/reprojection"] is None
    assert record["metrics"]["reprojection/valid_view_share"] == 0
    assert record["metrics"]["teacher/camera_motion"] is not None
    assert set(record["views"]["error"]) == {None}


@pytest.mark.parametrize("case", ["images", "latents alone", "nothing compared", "two views"])
def test_every_scene_can_be_drawn(scene, case, tmp_path):
    images = np.zeros((5, 24, 32, 3), np.uint8) if case == "images" else None
    if case == "nothing compared":
        scene = replace(scene, world_points=scene.world_points + 1e4)
    if case == "two views":
        scene = scene.select([0, 1])
    seen = SceneView(scene, tuple(range(0, 4 * scene.num_views, 4)), images, {})
    _, scored = score_scene(scene, REWARDS, "rgb")
    path = tmp_path / "plot.png"
    plot_scores("clip [1] $x_y$.mp4", seen, REWARDS, scored, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 20_000
