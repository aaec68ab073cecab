"""Every stage, by command, on each pair of a tiny Wan pipeline of either kind and a tiny geometry model."""

import functools
import gc
import json
import math
import weakref
from pathlib import Path

import pytest
import torch
from commands import Outcome, vggrpo
from diffusers import AutoencoderKLWan
from transformers import UMT5EncoderModel

from tiny_models import tiny_vggt, tiny_wan, trained_tiny_any4d
from vggrpo.backbones import load_video_backbone
from vggrpo.io import read_records, read_video
from vggrpo.lgm import LatentGeometryModel
from vggrpo.training.trainer import VGGRPOTrainer

SIDES = {"wan2.1": 32, "wan2.2": 64}
"""Of the clips, so that both kinds have latents of 4x4."""
CHANNELS = {"wan2.1": 16, "wan2.2": 48}
SHALLOW = {"any4d": ["E0", "E1", "E2", "F"], "vggt": ["E0", "E1", "E2", "A0", "A1"]}
CLIPS = ("--fit-clips", 4, "--held-out-clips", 2, "--downstream-clips", 2, "--batch-size", 2)
LGM = (
    *("--real-clips", 2, "--generated-clips", 2, "--num-prompts", 3, "--infer-steps", 2, "--epochs", 1),
    *("--warmup-steps", 1, "--lora-rank", 2, "--evaluate-every", 2, "--gate-clips", 3, "--noise-clips", 0),
)
FRUGAL = ("--gradient-checkpointing", "--micro-batch", 1)
TRAIN = (
    *("--num-prompts", 2, "--num-evaluation-prompts", 1, "--group-size", 4, "--prompts-per-rollout", 1),
    *("--iterations", 1, "--updates-per-rollout", 1, "--train-steps", 2, "--infer-steps", 2),
    *("--sde-window-start", 0, "--sde-window-stop", "None", "--sde-window-moves", "never"),
    *("--off-window-sigma", 1, "--noise-scale", 0.3),
    *("--sde-window-length", "all", "--no-shared-noise", "--ode-solver", "euler", "--ode-stride", 1),
    *("--rollout-batch", 2, "--update-batch", 2, "--lora-rank", 2),
    *("--lgm-floor", 0, "--threads", 1),
)


@pytest.fixture(scope="module")
def geometry_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with "any4d" and "vggt"."""
    folder = tmp_path_factory.mktemp("geometry")
    for name, make in (("any4d", trained_tiny_any4d), ("vggt", tiny_vggt)):
        (folder / name).mkdir()
        make().save_pretrained(folder / name)
    return folder


@pytest.fixture
def idle_parts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What there was of autoencoders and text encoders before and after each training step."""
    alive: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
    built: list[str] = []
    for kind in (AutoencoderKLWan, UMT5EncoderModel):

        def watched(initialise):
            @functools.wraps(initialise)
            def initialise_and_note(self, *args, **kwargs):
                initialise(self, *args, **kwargs)
                alive.add(self)
                built.append(type(self).__name__)

            return initialise_and_note

        monkeypatch.setattr(kind, "__init__", watched(kind.__init__))
    seen: list[list[str]] = []
    step = VGGRPOTrainer.step

    def watched_step(trainer):
        gc.collect()
        seen.append([type(part).__name__ for part in alive])
        before = len(built)
        metrics = step(trainer)
        seen.append(built[before:])
        return metrics

    monkeypatch.setattr(VGGRPOTrainer, "step", watched_step)
    yield seen
    assert {"AutoencoderKLWan", "UMT5EncoderModel"} <= set(built)  # they were watched


def succeeded(outcome: Outcome) -> str:
    assert outcome.status == 0, outcome.err
    return outcome.out


@pytest.mark.parametrize(
    ("kind", "geometry", "point", "options"),
    [
        ("wan2.1", "any4d", "M2", FRUGAL),
        ("wan2.2", "any4d", "E1", ()),
        ("wan2.1", "vggt", "A3", FRUGAL),
        ("wan2.2", "vggt", "A1", ()),
        # A regression from 48 channels takes half a minute, and there are two, of every candidate.
        pytest.param("wan2.2", "vggt", "auto", (), marks=pytest.mark.slow),
    ],
)
def test_every_stage(
    kind: str,
    geometry: str,
    point: str,
    options: tuple[object, ...],
    geometry_models: Path,
    tmp_path: Path,
    idle_parts: list[list[str]],
) -> None:
    tiny_wan(tmp_path / "video", kind)
    side = SIDES[kind]
    size = ("--num-frames", 9, "--height", side, "--width", side)
    base = ("--base-model", tmp_path / "video", *size)
    models = (*base, "--geometry-model", geometry_models / geometry)
    clips = (*models, *CLIPS, "--clip-cache", tmp_path / "clips")
    lgm, policy = tmp_path / "lgm", tmp_path / "train"

    candidates = SHALLOW[geometry] if point == "auto" else ["E0", point]
    named = () if point == "auto" else ("--candidates", *candidates)
    shown = succeeded(
        vggrpo("find-layer", "--recipe", "micro/find-layer", "--output", tmp_path / "layers", *clips, *named)
    )
    search = json.loads((tmp_path / "layers" / "layer_search.json").read_text())
    assert [row["point"] for row in search["candidates"]] == candidates
    assert all(math.isfinite(row["downstream_error"]) for row in search["candidates"])
    assert all(name in shown for name in candidates)

    succeeded(
        vggrpo(
            *("train-lgm", "--recipe", "micro/train-lgm", "--output", lgm, *clips, *LGM, *options),
            *("--stitch-point", point),
        )
    )
    records = read_records(lgm / "metrics.jsonl")
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses
    assert all(map(math.isfinite, losses))
    assert any("lgm/scene_flow" in record for record in records) == (geometry == "any4d")
    model = LatentGeometryModel.from_pretrained(lgm / "model")
    video = load_video_backbone(tmp_path / "video")
    model.check_latents(video.latent_spec)
    assert video.latent_spec.channels == CHANNELS[kind]
    assert point in ("auto", model.stitch_point)
    scene = model(torch.randn(1, *video.latent_shape(9, side, side)))
    patch = model.backbone.patch_size
    assert scene.depth_z.shape == (1, 3, 2 * patch, 2 * patch)
    assert (scene.scene_flow_from_ref is None) == (geometry == "vggt")

    succeeded(
        vggrpo(
            *("train", "--recipe", "micro/train", "--output", policy, "--lgm-path", lgm / "model"),
            *(*models, *TRAIN),
        )
    )
    assert idle_parts == [[], []]
    (update,) = [r for r in read_records(policy / "metrics.jsonl") if "policy/loss" in r]
    assert math.isfinite(update["policy/loss"])
    assert update["policy/kl"] == 0
    assert 0 < update["reward/camera_motion/mean"] <= 1
    assert "reward/reprojection/mean" in update

    succeeded(
        vggrpo(
            *("generate", "--recipe", "micro/generate", "--prompts", "a red box", "--infer-steps", 2, *base),
            *("--lora", policy / "lora", "--lgm-path", lgm / "model", "--save-scene"),
            *("--output", tmp_path / "videos"),
        )
    )
    (file,) = (tmp_path / "videos").glob("*.mp4")
    assert read_video(file)[0].shape == (9, side, side, 3)
    assert file.with_suffix(".scene.safetensors").is_file()
