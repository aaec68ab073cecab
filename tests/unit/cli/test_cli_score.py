"""`vggrpo score` through the entry point, on tiny models with random weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tiny_models import tiny_latent_geometry, tiny_vggt
from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.cli.main import main
from vggrpo.config import ConfigError
from vggrpo.evaluation.evaluated import read_evaluation
from vggrpo.evaluation.videos import Video
from vggrpo.evaluation.videos.base import Clip
from vggrpo.evaluation.videos.decoding import decode_clip
from vggrpo.evaluation.videos.geometry import GeometryViews
from vggrpo.io import file_sha256, load_tensors, save_tensors, write_json, write_video
from vggrpo.lgm import LatentGeometryModel
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.world import render_clips, sample_scene

SIDE, FRAMES = 16, 13
OPTIONS = {"relative": True, "flow_threshold": 0.05}


@pytest.fixture(scope="module")
def models(tiny_pipeline, tmp_path_factory) -> Path:
    """A folder with a recipe of the tiny pipeline, a `geometry` model and an `lgm`."""
    folder = tmp_path_factory.mktemp("models")
    settings = {"base_model": str(tiny_pipeline), "rewards": {"reprojection": OPTIONS}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    (folder / "geometry").mkdir()
    tiny_vggt().save_pretrained(folder / "geometry")
    tiny_latent_geometry(load_video_backbone(tiny_pipeline).latent_spec).save_pretrained(folder / "lgm")
    return folder


@pytest.fixture(scope="module")
def clips(tiny_pipeline, tmp_path_factory) -> Path:
    """A folder with a video, latents as `vggrpo generate` writes them, and files that cannot be scored."""
    folder = tmp_path_factory.mktemp("clips")
    backbone = load_video_backbone(tiny_pipeline)
    scenes = [sample_scene("validation", index) for index in range(2)]
    frames = render_clips(scenes, height=SIDE, width=SIDE, num_frames=FRAMES).frames
    write_video(folder / "video_seed0.mp4", (frames[0] * 255).round().byte(), 8.0)
    write_json(folder / "video_seed0.json", {"prompt": "a red box", "kind": "dynamic"})
    model = {"autoencoder": backbone.latent_spec.fingerprint}
    with torch.no_grad():
        latents = backbone.encode_video(frames[1:])[0]
    save_tensors(folder / "latents.safetensors", {"latents": latents}, {"model": model, "fps": 24})
    save_tensors(folder / "other.safetensors", {"latents": latents}, {"model": {"autoencoder": "f" * 64}})
    (folder / "truncated.mp4").write_bytes((folder / "video_seed0.mp4").read_bytes()[:900])
    write_video(folder / "wide.mp4", torch.zeros(FRAMES, SIDE, SIDE + 2, 3, dtype=torch.uint8), 8.0)
    return folder


@pytest.fixture
def score(models, tmp_path):
    def run(*words: object, output: str = "scores") -> int:
        flags = ("--recipe", models / "recipe.yaml", "--output", tmp_path / output)
        return main(["score", *map(str, (*words, *flags))])

    return run


def records(folder: Path) -> dict[str, dict]:
    lines = (folder / "clips.jsonl").read_text().splitlines()
    return {record["clip"]: record for record in map(json.loads, lines)}


@torch.no_grad()
def test_clips_are_scored_on_latents_and_bad_ones_are_named(
    score, clips, models, tiny_pipeline, tmp_path, capsys
):
    assert score(clips, clips / "missing.mp4", "--lgm-path", models / "lgm") == 1
    printed = capsys.readouterr().out
    found = records(tmp_path / "scores")
    reasons = {name: record["reason"] for name, record in found.items() if record["status"] == "failed"}
    assert set(reasons) == {"missing.mp4", "other.safetensors", "truncated.mp4", "wide.mp4"}
    assert "autoencoder ffffffffffff" in reasons["other.safetensors"]
    assert "width is 18, but the autoencoder needs a multiple of 4" in reasons["wide.mp4"]
    assert "truncated or not a video" in reasons["truncated.mp4"]
    assert all(f"failed: {name}: {reason}" in printed for name, reason in reasons.items())
    assert "6 clips, 4 failed" in printed

    lgm, backbone = LatentGeometryModel.from_pretrained(models / "lgm"), load_video_backbone(tiny_pipeline)
    saved = load_tensors(clips / "latents.safetensors")["latents"][None]
    pixels = torch.from_numpy(decode_clip(clips / "video_seed0.mp4")[0].frames)[None].float() / 255
    for name, latents in (("latents.safetensors", saved), ("video_seed0.mp4", backbone.encode_video(pixels))):
        scene, metrics = lgm(latents), found[name]["metrics"]
        motion, geometry = CameraMotionReward()(scene), ReprojectionReward(**OPTIONS)(scene)
        assert metrics["lgm/camera_motion"] == pytest.approx(motion.value.item(), rel=1e-4)
        assert metrics["lgm/reprojection"] == pytest.approx(geometry.value.item(), rel=1e-4)
        assert found[name]["views"]["error"] == pytest.approx(
            geometry.parts["view_error"][0].tolist(), rel=1e-3
        )
        assert found[name]["views"]["frames"] == [0, 4, 8, 12]
        assert (tmp_path / "scores" / found[name]["plot"]).stat().st_size > 10_000
    video, latent = found["video_seed0.mp4"], found["latents.safetensors"]
    assert (video["prompt"], video["prompt_id"], video["seed"], video["kind"]) == (
        "a red box",
        "video",
        0,
        "dynamic",
    )
    assert (video["source"], latent["source"]) == ("video", "latents")
    sizes = [tuple(record[key] for key in ("frames", "height", "width", "fps")) for record in (video, latent)]
    assert sizes == [(FRAMES, SIDE, SIDE, 8.0), (FRAMES, SIDE, SIDE, 24.0)]

    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert (summary["num_clips"], summary["num_failed"], summary["label"]) == (6, 4, "scores")
    row = summary["metrics"]["lgm/camera_motion"]
    assert row["all"]["n"] == 2
    mean = (video["metrics"]["lgm/camera_motion"] + latent["metrics"]["lgm/camera_motion"]) / 2
    assert row["all"]["mean"] == pytest.approx(mean)
    assert row["dynamic"]["n"] == 1
    assert row["static"] is None
    identity = {"space": "latent", "lgm": file_sha256(models / "lgm" / "manifest.json")}
    assert summary["metric_settings"].keys() == {"camera_motion", "reprojection"}
    assert summary["metric_settings"]["reprojection"].items() >= (identity | OPTIONS).items()


@torch.no_grad()
def test_an_uncut_model_sees_frames(score, clips, models, tiny_pipeline, tmp_path):
    files = (clips / "video_seed0.mp4", clips / "latents.safetensors", clips / "wide.mp4")
    flags = ("--space", "rgb", "--geometry-model", models / "geometry", "--view-stride", 3, "--no-plots")
    assert score(*files, *flags) == 0
    found = records(tmp_path / "scores")
    assert not (tmp_path / "scores" / "plots").exists()
    model, views = load_geometry_backbone(models / "geometry"), GeometryViews(3, 21, 518, 4)
    saved = load_tensors(clips / "latents.safetensors")["latents"][None]
    decoded = load_video_backbone(tiny_pipeline).decode_latents(saved)[0]
    clip = Clip("", Path())
    for name, video in (
        ("video_seed0.mp4", decode_clip(clips / "video_seed0.mp4")[0]),
        ("latents.safetensors", Video((decoded.clamp(0, 1) * 255).round().byte().numpy(), 24.0)),
    ):
        scene = model(torch.from_numpy(views(video, clip))[None].float() / 255)
        value = CameraMotionReward()(scene).value.item()
        assert found[name]["metrics"]["teacher/camera_motion"] == pytest.approx(value, rel=1e-4)
        assert found[name]["views"]["frames"] == [0, 3, 6, 9, 12]
    assert found["wide.mp4"]["status"] == "ok"
    assert any("no scene flow" in note for note in found["wide.mp4"]["notes"])


def test_a_resumed_command_scores_only_what_is_new_or_changed(score, clips, models, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (own / name).write_bytes((clips / "video_seed0.mp4").read_bytes())
    words = (own, "--lgm-path", models / "lgm")
    assert score(*words) == 0
    before = records(tmp_path / "scores")
    for name in ("a.mp4", "b.mp4"):
        marked = before[name] | {"notes": ["kept"]}
        with open(tmp_path / "scores" / "clips.jsonl", "a") as file:
            file.write(json.dumps(marked) + "\n")
    (own / "b.mp4").write_bytes((clips / "wide.mp4").read_bytes())
    (own / "c.mp4").write_bytes((clips / "video_seed0.mp4").read_bytes())
    assert score(*words, "--resume") == 1
    after = records(tmp_path / "scores")
    assert after["a.mp4"]["notes"] == ["kept"]
    assert after["b.mp4"]["status"] == "failed"
    assert after["c.mp4"]["metrics"] == before["a.mp4"]["metrics"]
    assert score(*words) == 1  # it holds a run


def test_a_corrected_sidecar_is_taken_over_without_scoring_again(score, clips, models, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "a_seed1.mp4").write_bytes((clips / "video_seed0.mp4").read_bytes())
    (own / "a_seed1.json").write_text('{"kind": "wobbly"')
    words = (own, "--lgm-path", models / "lgm", "--no-plots")
    assert score(*words) == 0
    before = records(tmp_path / "scores")["a_seed1.mp4"]
    assert "cannot be used" in before["notes"][0]
    with open(tmp_path / "scores" / "clips.jsonl", "a") as file:
        file.write(json.dumps(before | {"notes": [*before["notes"], "kept"]}) + "\n")
    known = {"prompt": "a blue box", "prompt_id": "b", "seed": 2, "kind": "static"}
    write_json(own / "a_seed1.json", known)
    assert score(*words, "--resume") == 0
    after = records(tmp_path / "scores")["a_seed1.mp4"]
    assert after.items() >= (known | {"notes": [*before["notes"][1:], "kept"]}).items()
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["metrics"]["lgm/camera_motion"]["static"]["n"] == 1


def test_clips_of_one_file_name_have_pictures_of_their_own(score, clips, models, tmp_path):
    files = [tmp_path / folder / "x.mp4" for folder in ("A", "B")]
    for file in files:
        file.parent.mkdir()
        file.write_bytes((clips / "video_seed0.mp4").read_bytes())
    assert score(*files, "--lgm-path", models / "lgm") == 0
    found = records(tmp_path / "scores")
    plots = {tmp_path / "scores" / record["plot"] for record in found.values()}
    assert plots == set((tmp_path / "scores" / "plots").iterdir())
    assert len(plots) == 2
    assert [path for path in tmp_path.rglob("*.png") if path not in plots] == []


def test_an_interrupted_continuation_is_not_finished(score, clips, models, tmp_path):
    own, output = tmp_path / "own", tmp_path / "scores"
    own.mkdir()
    (own / "a.mp4").write_bytes((clips / "video_seed0.mp4").read_bytes())
    words = (own, "--lgm-path", models / "lgm")
    assert score(*words) == 0
    (own / "b.mp4").write_bytes((clips / "video_seed0.mp4").read_bytes())
    shutil.rmtree(output / "plots")
    (output / "plots").touch()
    assert score(*words, "--resume") == 1
    with pytest.raises(ConfigError, match="not finished"):
        read_evaluation(output)
    (output / "plots").unlink()
    assert score(*words, "--resume") == 0
    assert len(read_evaluation(output).clips) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--space", "latent"), "needs lgm_path"),
        (("--space", "rgb"), "needs geometry_model"),
        (("--space", "rgb", "--geometry-model", "vggt", "--lgm-path", "x"), "lgm_path is x, but space rgb"),
        (("--lgm-path", "x", "--max-side", "64"), "max_side is 64, but space latent"),
        (("--space", "rgb", "--geometry-model", "nothing"), "nothing"),
        (("--lgm-path", "nowhere"), "nowhere holds no latent geometry model"),
    ],
)
def test_wrong_settings_are_found_before_anything_is_made(score, clips, tmp_path, capsys, words, message):
    assert score(clips, *words) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()
