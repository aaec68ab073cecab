"""Layer search, latent geometry model, post-training and generation on a tiny LTX-Video pipeline."""

import json
from pathlib import Path

import pytest
import torch
from commands import vggrpo
from diffusers import LTXPipeline

from tiny_models import tiny_ltx, tiny_vggt
from vggrpo.backbones import load_video_backbone
from vggrpo.io import load_tensors, read_records, read_video
from vggrpo.lgm import LatentGeometryModel

SIZE = ("--num-frames", 25, "--height", 128, "--width", 128)
"""Latents of 4 frames of 4x4."""
CLIPS = ("--fit-clips", 4, "--held-out-clips", 2, "--downstream-clips", 2, "--batch-size", 2)
LGM = (
    *("--real-clips", 2, "--generated-clips", 2, "--num-prompts", 3, "--infer-steps", 2, "--epochs", 1),
    *("--warmup-steps", 1, "--lora-rank", 2, "--evaluate-every", 2, "--gate-clips", 3, "--noise-clips", 0),
    *("--stitch-point", "E1"),
)
TRAIN = (
    *("--num-prompts", 2, "--num-evaluation-prompts", 1, "--group-size", 4, "--prompts-per-rollout", 1),
    *("--iterations", 2, "--updates-per-rollout", 1, "--train-steps", 3, "--infer-steps", 2),
    *("--sde-window-start", 0, "--sde-window-stop", "None", "--sde-window-moves", "never"),
    *("--noise-scale", 0.3),
    *("--sde-window-length", "all", "--no-shared-noise", "--ode-solver", "euler", "--ode-stride", 1),
    *("--rollout-batch", 2, "--update-batch", 2, "--lora-rank", 2),
    *("--lgm-floor", 0, "--threads", 1, "--cfg-scale", 2, "--precision", "float32"),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with "video" and "geometry"."""
    folder = tmp_path_factory.mktemp("models")
    tiny_ltx(folder / "video")
    tiny_vggt().save_pretrained(folder / "geometry")
    return folder


def command(name: str, output: Path) -> tuple[object, ...]:
    return (name, "--recipe", f"micro/{name}", "--output", output)


def test_every_stage_runs(models: Path, tmp_path: Path) -> None:
    video = ("--base-model", models / "video")
    stages = (*video, "--geometry-model", models / "geometry", *SIZE)
    cached = (*CLIPS, "--clip-cache", tmp_path / "clips")

    search = vggrpo(*command("find-layer", tmp_path / "layers"), *stages, *cached, "--candidates", "E0", "E1")
    assert search.status == 0, search.err
    assert all(name in search.out for name in ("E0", "E1"))

    distilled = vggrpo(*command("train-lgm", tmp_path / "lgm"), *stages, *cached, *LGM)
    assert distilled.status == 0, distilled.err
    model = tmp_path / "lgm" / "model"
    scene = LatentGeometryModel.from_pretrained(model)(torch.randn(1, 8, 4, 4, 4))
    assert scene.depth_z.shape == (1, 4, 8, 8)

    train = vggrpo(*command("train", tmp_path / "train"), "--lgm-path", model, *stages, *TRAIN)
    assert train.status == 0, train.err
    records = [r for r in read_records(tmp_path / "train" / "metrics.jsonl") if "policy/loss" in r]
    assert records[0]["policy/ratio_deviation"] <= 1e-6
    assert records[0]["policy/kl"] == 0
    assert {"reward/camera_motion/mean", "reward/reprojection/mean"} <= records[0].keys()

    lora = tmp_path / "train" / "lora"
    wanted = (*video, *SIZE, "--prompts", "a red box", "--infer-steps", 3, "--save-latents")
    for output, words in (("base", ()), ("aligned", ("--lora", lora))):
        made = vggrpo(*command("generate", tmp_path / output), *wanted, *words)
        assert made.status == 0, made.err
    (base,), (aligned,) = ((tmp_path / name).glob("*.mp4") for name in ("base", "aligned"))
    assert read_video(aligned)[0].shape == (25, 128, 128, 3)
    latents = [load_tensors(file.with_suffix(".safetensors"))["latents"] for file in (base, aligned)]
    assert not torch.equal(*latents)
    sidecar = json.loads(base.with_suffix(".json").read_text())
    assert sidecar["model"]["flow_shift"] == "exp(0.95) at 1024 tokens, exp(2.05) at 4096"

    assert_plain_diffusers_is_the_policy(models / "video", lora)


def assert_plain_diffusers_is_the_policy(folder: Path, lora: Path) -> None:
    pipeline = LTXPipeline.from_pretrained(folder)
    pipeline.load_lora_weights(lora)
    policy, theirs = load_video_backbone(folder), load_video_backbone(folder)
    policy.load_lora(lora)
    theirs._transformer = pipeline.transformer
    inputs = (torch.randn(1, 8, 4, 4, 4), 0.7, policy.encode_prompts(["a red box"]))
    with torch.no_grad():
        torch.testing.assert_close(policy.velocity(*inputs), theirs.velocity(*inputs), rtol=1e-5, atol=1e-5)


def test_no_plan_is_made_for_it(models: Path, tmp_path: Path) -> None:
    lgm = ("--base-model", models / "video", "--geometry-model", models / "geometry", *SIZE, "--dry-run")
    plan = vggrpo(*command("train-lgm", tmp_path / "lgm"), *lgm)
    assert plan.status == 2
    assert "is a LTXPipeline, and a plan can be made for Wan models only" in plan.err
