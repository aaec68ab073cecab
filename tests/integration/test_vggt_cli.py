"""Layer search, latent geometry model and post-training with VGGT, on tiny pipelines of both Wan kinds."""

import json
from pathlib import Path

import pytest
import torch
from commands import vggrpo

from tiny_models import tiny_vggt, tiny_wan
from vggrpo.backbones import load_video_backbone
from vggrpo.backbones.vggt import VGGT
from vggrpo.io import read_records
from vggrpo.lgm import LatentGeometryModel

SIDES = {"wan2.1": 32, "wan2.2": 64}
"""Of the clips, so that both have latents of 4x4."""
CLIPS = ("--fit-clips", 4, "--held-out-clips", 2, "--downstream-clips", 2, "--batch-size", 2)
LGM = (
    *("--real-clips", 2, "--generated-clips", 2, "--num-prompts", 3, "--infer-steps", 2, "--epochs", 1),
    *("--warmup-steps", 1, "--lora-rank", 2, "--evaluate-every", 2, "--gate-clips", 3, "--noise-clips", 0),
)
TRAIN = (
    *("--num-prompts", 2, "--num-evaluation-prompts", 1, "--group-size", 4, "--prompts-per-rollout", 1),
    *("--iterations", 1, "--updates-per-rollout", 1, "--train-steps", 2, "--infer-steps", 2),
    *("--sde-window-length", "all", "--rollout-batch", 2, "--update-batch", 2, "--lora-rank", 2),
    *("--lgm-floor", 0, "--threads", 1),
)


@pytest.fixture(scope="module")
def geometry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("geometry")
    tiny_vggt().save_pretrained(folder)
    return folder


def clip_flags(kind: str, folder: Path, geometry: Path) -> tuple[object, ...]:
    side = SIDES[kind]
    return (
        *("--base-model", folder / "video", "--geometry-model", geometry, "--num-frames", 9),
        *("--height", side, "--width", side),
    )


@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2"])
def test_a_latent_geometry_model_of_vggt(kind: str, geometry: Path, tmp_path: Path) -> None:
    tiny_wan(tmp_path / "video", kind)
    flags = (*clip_flags(kind, tmp_path, geometry), *CLIPS, *LGM, "--stitch-point", "auto")
    outcome = vggrpo("train-lgm", "--recipe", "micro/train-lgm", "--output", tmp_path / "lgm", *flags)
    assert outcome.status == 0, outcome.err
    search = json.loads((tmp_path / "lgm" / "layer_search.json").read_text())
    assert [row["point"] for row in search["candidates"]] == ["E0", "E1", "E2", "A0", "A1"]
    records = read_records(tmp_path / "lgm" / "metrics.jsonl")
    assert not any("lgm/scene_flow" in record for record in records)
    assert any("lgm/depth" in record for record in records)

    model = LatentGeometryModel.from_pretrained(tmp_path / "lgm" / "model")
    assert isinstance(model.backbone, VGGT)
    video = load_video_backbone(tmp_path / "video")
    model.check_latents(video.latent_spec)
    assert video.latent_spec.channels == {"wan2.1": 16, "wan2.2": 48}[kind]
    scene = model(torch.randn(1, *video.latent_shape(9, SIDES[kind], SIDES[kind])))
    assert scene.depth_z.shape == (1, 3, 8, 8)
    assert scene.scene_flow_from_ref is None


def test_a_policy_is_trained_with_vggt(geometry: Path, tmp_path: Path) -> None:
    tiny_wan(tmp_path / "video", "wan2.1")
    clips = clip_flags("wan2.1", tmp_path, geometry)
    search = vggrpo(
        *("find-layer", "--recipe", "micro/find-layer", "--output", tmp_path / "layers", *clips, *CLIPS),
        *("--candidates", "A0", "A1"),
    )
    assert search.status == 0, search.err
    assert all(name in search.out for name in ("A0", "A1"))
    lgm = vggrpo(
        *("train-lgm", "--recipe", "micro/train-lgm", "--output", tmp_path / "lgm", *clips, *CLIPS, *LGM),
        *("--stitch-point", "A1"),
    )
    assert lgm.status == 0, lgm.err
    model = tmp_path / "lgm" / "model"
    train = vggrpo(
        *("train", "--recipe", "micro/train", "--output", tmp_path / "train", "--lgm-path", model),
        *(*clips, *TRAIN),
    )
    assert train.status == 0, train.err
    (update,) = [r for r in read_records(tmp_path / "train" / "metrics.jsonl") if "policy/loss" in r]
    assert update["policy/kl"] == 0
    assert {"reward/camera_motion/mean", "reward/reprojection/mean"} <= update.keys()
