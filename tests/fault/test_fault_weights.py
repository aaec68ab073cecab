"""Damaged or foreign weights: found before any work, named, and never loaded."""

import logging
import shutil
from pathlib import Path

import pytest

from vggrpo.config import resolve_model
from vggrpo.io import read_json, write_json

VIDEO, GEOMETRY = (resolve_model("micro", kind).folder for kind in ("video", "geometry"))


def flip(path, place=-9):
    """Turns one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / f"copy-{folder.name}")


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("file", ["connector.safetensors", "geometry/model.safetensors", "config.json"])
def test_a_damaged_latent_geometry_model(vggrpo, train, lgm, tmp_path, damage, file):
    damaged = copy_of(lgm, tmp_path)
    damage(damaged / file)
    vggrpo(*train, "--lgm-path", damaged).is_a_sentence(1, str(damaged), Path(file).name)
    assert not (tmp_path / "run").exists()


def test_a_missing_latent_geometry_model(vggrpo, train, tmp_path):
    outcome = vggrpo(*train, "--lgm-path", tmp_path / "none")
    outcome.is_a_sentence(
        1, f"{tmp_path / 'none'} holds no latent geometry model", "`vggrpo train-lgm` writes one"
    )
    assert not (tmp_path / "run").exists()


def test_a_latent_geometry_model_of_another_autoencoder(vggrpo, train, tmp_path):
    other = copy_of(VIDEO, tmp_path)
    flip(other / "vae" / "diffusion_pytorch_model.safetensors")
    outcome = vggrpo(*train, "--base-model", other, "--recipe", "micro/train")
    outcome.is_a_sentence(
        1, "reads latents of micro", f"{other} has another autoencoder", "`vggrpo train-lgm`"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "file",
    [
        "vae/diffusion_pytorch_model.safetensors",
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    ],
)
def test_a_truncated_video_model(vggrpo, tmp_path, file):
    damaged = copy_of(VIDEO, tmp_path)
    truncate(damaged / file)
    flags = (
        "--recipe",
        "micro/generate",
        "--base-model",
        damaged,
        "--prompts",
        "a red box",
        "--infer-steps",
        1,
    )
    outcome = vggrpo("generate", *flags, "--output", tmp_path / "videos")
    assert outcome.status in (1, 2)
    outcome.is_a_sentence(outcome.status, str(damaged / file), "get a fresh copy")
    assert not (tmp_path / "videos").exists()


@pytest.mark.parametrize(("damage", "file"), [(truncate, "model.safetensors"), (truncate, "config.json")])
def test_a_truncated_geometry_model(vggrpo, train, tmp_path, damage, file):
    damaged = copy_of(GEOMETRY, tmp_path)
    damage(damaged / file)
    vggrpo(*train, "--geometry-model", damaged).is_a_sentence(1, str(damaged / file))
    assert not (tmp_path / "run").exists()


def test_a_missing_weight_file(vggrpo, train, tmp_path):
    damaged = copy_of(GEOMETRY, tmp_path)
    (damaged / "model.safetensors").unlink()
    vggrpo(*train, "--geometry-model", damaged).is_a_sentence(1, str(damaged))
    assert not (tmp_path / "run").exists()


def test_what_later_iterations_have_left_goes_when_an_older_checkpoint_is_taken(vggrpo, train, tmp_path):
    """Otherwise the evaluation of a policy that is gone would be taken for that of the one in its place."""
    assert vggrpo(*train).status == 0
    run = tmp_path / "run"
    first, last = (run / "evaluations" / f"step_00000{iteration}.json" for iteration in (0, 2))
    untouched, stale = first.stat().st_mtime_ns, last.read_bytes()
    videos = {path: path.read_bytes() for path in (run / "samples" / "step_000002").iterdir()}
    (run / "best").mkdir(exist_ok=True)
    write_json(run / "best" / "score.json", {"iteration": 2, "score": 99.0})
    planted = {"name": "kl_runaway", "sentence": "planted", "values": {}}
    write_json(run / "alarms.json", [planted | {"iteration": iteration} for iteration in (0, 2)])
    flip(run / "checkpoints" / "step_000002" / "policy.safetensors")

    resumed = vggrpo("train", "--output", run, "--resume", "--lr", 0.5, "--allow-changes", "lr")
    assert resumed.status == 0, resumed.err
    assert first.stat().st_mtime_ns == untouched
    assert last.read_bytes() != stale
    assert videos
    assert all(path.read_bytes() != video for path, video in videos.items())
    best = run / "best" / "score.json"
    assert not best.exists() or read_json(best)["score"] < 99.0
    assert [alarm["iteration"] for alarm in read_json(run / "alarms.json")] == [0]


def test_damaged_checkpoints(vggrpo, train, tmp_path, caplog):
    """The newest is passed over with a warning; where all are damaged, the run says so and keeps them."""
    assert vggrpo(*train).status == 0
    checkpoints = tmp_path / "run" / "checkpoints"
    newest, older = checkpoints / "step_000002", checkpoints / "step_000001"
    flip(newest / "policy.safetensors")
    with caplog.at_level(logging.WARNING):
        resumed = vggrpo("train", "--output", tmp_path / "run", "--resume")
    assert resumed.status == 0, resumed.err
    assert "policy.safetensors" in caplog.text
    assert "continuing from step 1" in caplog.text

    flip(newest / "policy.safetensors")
    flip(older / "optimizer.safetensors")
    outcome = vggrpo("train", "--output", tmp_path / "run", "--resume")
    outcome.is_a_sentence(1, "no checkpoint of", "policy.safetensors", "optimizer.safetensors", "Restore one")
    assert newest.is_dir()
    assert older.is_dir()
