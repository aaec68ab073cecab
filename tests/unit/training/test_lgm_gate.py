"""The gate that `train-lgm` leaves with a model: its figures, computed again by hand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_lgm import lgm_settings, save_trained_geometry_model

from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.config import LGMSettings
from vggrpo.data import ClipCache
from vggrpo.evaluation import LGMGate, spearman
from vggrpo.io import make_generator, write_video
from vggrpo.lgm import LatentGeometryModel, agreement, teacher_frames
from vggrpo.training.lgm import train_lgm
from vggrpo.training.lgm_data import clip_frames, teacher_scene, weights_fingerprint
from vggrpo.training.lgm_gate import NOISE_LEVELS, channel_std, separation_of_real_clips
from vggrpo.training.rewards import build_rewards
from vggrpo.training.sources import held_out_prompts, open_videos, training_prompts

CLIPS, NOISY = 5, 3


@dataclass(frozen=True)
class Made:
    """A finished `train-lgm`."""

    settings: LGMSettings
    model: Path

    @property
    def gate(self) -> LGMGate:
        return LGMGate.load(self.model)

    def clips(self, kind: str) -> dict[str, torch.Tensor]:
        cache = ClipCache(self.settings.output / "clips" / f"{kind}-held-out")
        return cache.batch(range(len(cache)))

    def lgm(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        """The rewards of latents through the saved model."""
        with torch.no_grad():
            return self.values(LatentGeometryModel.from_pretrained(self.model)(latents))

    def teacher(self, latents: torch.Tensor, passes: int = 0) -> dict[str, torch.Tensor]:
        """The rewards of decoded latents through the uncut model, after some more passes."""
        video = load_video_backbone(self.settings.base_model)
        geometry = load_geometry_backbone(self.settings.geometry_model)
        with torch.no_grad():
            frames = video.decode_latents(latents)
            for _ in range(passes):
                frames = video.decode_latents(video.encode_video(frames))
            return self.values(geometry(teacher_frames(frames, video.latent_spec, geometry.patch_size)))

    def values(self, scene) -> dict[str, torch.Tensor]:
        return {name: reward(scene).value for name, reward in build_rewards(self.settings.rewards).items()}


@pytest.fixture(scope="module")
def made(lgm_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("gate")
    save_trained_geometry_model(folder / "geometry")
    settings = lgm_settings(
        lgm_models,
        geometry_model=str(folder / "geometry"),
        output=folder / "run",
        num_frames=9,  # three views, as the camera's acceleration needs
        stitch_point="E1",
        fit_clips=6,
        downstream_clips=0,
        epochs=1,
        lora_rank=2,
        gate_clips=CLIPS,
        noise_clips=NOISY,
        # To weights that have hardly learnt anything, everything moves.
        rewards={"reprojection": {"dynamic_filter": False}},
    )
    return Made(settings, train_lgm(settings))


def assert_values(measured: tuple[float, ...], expected: torch.Tensor) -> None:
    """Other batches round differently."""
    assert np.isfinite(measured).any(), "no clip was measurable, so nothing is tested"
    np.testing.assert_allclose(measured, expected.numpy(), rtol=1e-3, atol=1e-4)


def test_the_gate_lies_in_the_run_and_with_the_model(made: Made) -> None:
    run = made.settings.output
    assert (run / "gate.json").read_bytes() == (made.model / "gate.json").read_bytes()
    assert (run / "gate.png").read_bytes().startswith(b"\x89PNG")


def test_it_says_what_was_measured(made: Made) -> None:
    gate = made.gate
    assert gate.weights == weights_fingerprint(LatentGeometryModel.from_pretrained(made.model))
    assert gate.clip == (9, 16, 16)
    assert (gate.base_model, gate.geometry_model) == (
        made.settings.base_model,
        made.settings.geometry_model,
    )
    assert gate.options == made.settings.rewards.model_dump(mode="json")


def test_generated_clips(made: Made) -> None:
    latents = made.clips("generated")["latents"]
    assert len(latents) == CLIPS
    expected = made.lgm(latents), made.teacher(latents), made.teacher(latents, passes=1)
    for name, measured in made.gate.generated.rewards.items():
        for values, column in zip((measured.lgm, measured.teacher, measured.repeated), expected, strict=True):
            assert_values(values, column[name])
        known = ~np.isnan([measured.lgm, measured.teacher, measured.repeated]).any(axis=0)
        ranks = spearman(np.array(measured.lgm)[known], np.array(measured.teacher)[known])
        assert repr(measured.correlation.mean) == repr(ranks)
        assert measured.share.count + measured.share.missing == CLIPS


def test_real_clips(made: Made) -> None:
    batch = made.clips("real")
    assert len(batch["latents"]) == CLIPS  # of the endless world as many as generated ones
    videos = open_videos(made.settings, CLIPS, held_out=True)
    video = load_video_backbone(made.settings.base_model)
    frames = torch.stack([videos.clip(index) for index in range(CLIPS)])
    views = teacher_frames(frames, video.latent_spec, 8)
    assert (clip_frames(batch) - views).abs().max() < 1 / 255
    expected = (
        made.lgm(batch["latents"]),
        made.values(teacher_scene(batch)),
        made.teacher(batch["latents"]),
    )
    for name, measured in made.gate.real.rewards.items():
        for values, column in zip((measured.lgm, measured.teacher, measured.repeated), expected, strict=True):
            assert_values(values, column[name])


def test_errors_are_means_over_clips(made: Made) -> None:
    batch = made.clips("generated")
    with torch.no_grad():
        student = LatentGeometryModel.from_pretrained(made.model)(batch["latents"])
    expected = agreement(student, teacher_scene(batch))
    errors = made.gate.generated.errors
    assert {"depth_abs_rel", "rotation_deg", "translation_error", "flow_epe"} <= errors.keys()
    for name, interval in errors.items():
        assert interval.mean == pytest.approx(expected[name].mean().item(), rel=1e-3, abs=1e-4), name


def test_every_element_counts_alike_in_the_spread_of_a_channel() -> None:
    small, large = torch.randn(1, 2, 1, 3, 3), 5.0 + torch.randn(3, 2, 4, 5, 6)
    together = torch.cat([part.transpose(0, 1).flatten(1) for part in (small, large)], dim=1)
    std = together.std(dim=1, unbiased=False)[:, None, None, None]
    torch.testing.assert_close(channel_std([small, large]), std)
    torch.testing.assert_close(channel_std([small[0], *large]), std)


def test_noise_is_scaled_by_the_latents_channels(made: Made) -> None:
    latents = made.clips("generated")["latents"][:NOISY]
    std = latents.transpose(0, 1).flatten(1).std(dim=1, unbiased=False)[:, None, None, None]
    cache = ClipCache(made.settings.output / "clips" / "generated-held-out")
    torch.testing.assert_close(channel_std(cache[clip]["latents"] for clip in range(NOISY)), std)
    noise = torch.stack(
        [
            torch.randn(latents.shape[1:], generator=make_generator(made.settings.seed, "gate-noise", i))
            for i in range(NOISY)
        ]
    )
    reference = made.teacher(latents)
    for name, points in made.gate.robustness.items():
        assert tuple(point.level for point in points) == NOISE_LEVELS
        assert points[0].teacher.error.mean == 0.0
        for point in (points[0], points[3]):
            perturbed = latents + point.level * std * noise
            for response, values in (
                (point.lgm, made.lgm(perturbed)),
                (point.teacher, made.teacher(perturbed)),
            ):
                error = (values[name] - reference[name]).abs()
                expected = np.nanmedian(error.numpy())
                assert response.error.mean == pytest.approx(expected, rel=1e-2, abs=1e-4)
                assert response.error.count + response.error.missing == NOISY


def test_the_worlds_clips_are_known_to_be_shaky(made: Made) -> None:
    columns = {
        f"{source}/camera_motion": torch.tensor([0.9 - shaky for shaky in _shaky(made.settings, 40)])
        for source in ("lgm", "teacher", "repeated")
    }
    columns["teacher/camera_motion"] = -columns["teacher/camera_motion"]
    aucs = separation_of_real_clips(columns, made.settings)
    assert [aucs[name].mean for name in ("lgm", "teacher", "autoencoded")] == [1.0, 0.0, 1.0]
    assert made.gate.steady_shaky_auc.keys() == aucs.keys()


def _shaky(settings: LGMSettings, count: int) -> list[bool]:
    shaky = open_videos(settings, count, held_out=True).is_shaky()
    assert 0 < sum(shaky) < count
    return shaky


def test_nobody_knows_which_of_a_folders_clips_are_shaky(lgm_models: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", torch.zeros(5, 16, 16, 3, dtype=torch.uint8), 8)
    settings = lgm_settings(lgm_models, real_videos=str(tmp_path))
    assert separation_of_real_clips({"lgm/camera_motion": torch.ones(2)}, settings) == {}


def test_the_gates_prompts_are_none_of_the_training_prompts(lgm_models: Path) -> None:
    settings = lgm_settings(lgm_models, num_prompts=60, gate_clips=40)
    held_out = {prompt.text for prompt in held_out_prompts(settings)}
    assert len(held_out) == 40
    assert not held_out & {prompt.text for prompt in training_prompts(settings)}
