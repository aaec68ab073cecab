"""`vggrpo world evaluate`: what it measures, its cards, and the contact sheets of the video training."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.image import imread
from safetensors.torch import load_file

from tiny_models import tiny_any4d_config
from vggrpo.backbones import load_video_backbone
from vggrpo.backbones.any4d import Any4D
from vggrpo.cli.main import main
from vggrpo.config import (
    ConfigError,
    GeometrySettings,
    LoopSettings,
    VideoSettings,
    WorldEvaluateSettings,
    validate,
)
from vggrpo.evaluation import auc
from vggrpo.io import RunFolder, derive_seed
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.rollout import initial_noise
from vggrpo.training.pretrain import video as video_training
from vggrpo.training.pretrain.contact_sheet import MARGIN, draw_contact_sheet
from vggrpo.training.pretrain.evaluate import identities, load_instruments
from vggrpo.training.pretrain.fault_ranking import SOURCES, fault_figures, ranking
from vggrpo.training.pretrain.frechet_sets import SHARD_SIZE, FrechetSets
from vggrpo.training.pretrain.measures import SIGMA_BANDS, geometry_errors, velocity_losses
from vggrpo.training.pretrain.provenance import packaged_trainings, trainings_of_runs
from vggrpo.training.pretrain.samples import SampleMaker
from vggrpo.training.pretrain.summary import best_threshold, geometry_figures, steadiness
from vggrpo.world import render_clips, sample_scene

FRAMES, SIDE = 9, 32
SIZE = ("--clips.num-frames", str(FRAMES), "--clips.height", str(SIDE), "--clips.width", str(SIDE))
COUNTS = ("--num-clips", "3", "--num-samples", "2", "--infer-steps", "2", "--batch-size", "2")
COUNTS += ("--num-faulty", "3", "--num-frechet", "5")


def save_geometry(folder: Path, patch_size: int) -> Path:
    """A small Any4D of random weights."""
    model = Any4D(tiny_any4d_config(patch_size=patch_size))
    generator = torch.Generator().manual_seed(0)
    model.reset_parameters(depth=3.0, generator=generator)
    with torch.no_grad():  # rays that fan out, as any trained model's do
        for parameter in model.network.dense_head.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    folder.mkdir()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def geometry_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_geometry(tmp_path_factory.mktemp("models") / "small-geometry", patch_size=8)


@pytest.fixture(scope="module")
def clips():
    """Key frames of eight clips; steady and shaky, static and dynamic ones are among them."""
    return render_clips([sample_scene("test", i) for i in range(8)], views="keys")


@pytest.fixture
def geometry_run(tmp_path: Path) -> Path:
    """A finished training of a geometry model, as far as its settings and metrics go."""
    settings = GeometrySettings(
        output=tmp_path / "private" / "run", loop=LoopSettings(steps=1800, batch_size=4, lr=1e-3)
    )
    run = RunFolder.create(settings.output, settings)
    run.log(10, {"loss": 1.0, "time/step": 1.0})
    run.log(20, {"loss": 0.5, "time/step": 3.0})
    run.log(20, {"geometry/validation_depth_abs_rel": 0.5})
    return settings.output


def header_of(card: str) -> dict:
    opening, header, _ = card.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(header)


def test_command_measures_and_writes(tiny_pipeline, geometry_folder, geometry_run, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["world", "evaluate", "--video", str(tiny_pipeline), "--geometry", str(geometry_folder)]
    words += ["--output", str(output), "--train-runs", str(geometry_run), *SIZE, *COUNTS]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "PSNR of the reconstruction" in shown
    assert str(output / "video" / "README.md") in shown

    figures = json.loads((output / "evaluation.json").read_text())
    backbone = load_video_backbone(tiny_pipeline)
    raster = {"num_frames": FRAMES, "height": SIDE, "width": SIDE}
    frames = render_clips([sample_scene("test", i) for i in range(3)], **raster).frames
    decoded = backbone.decode_latents(backbone.encode_video(frames)).clamp(0, 1)
    psnr = [10 * np.log10(1 / ((a - b) ** 2).mean().item()) for a, b in zip(decoded, frames, strict=True)]
    assert figures["autoencoder"]["psnr_db"]["mean"] == pytest.approx(np.mean(psnr), abs=0.01)
    assert figures["models"]["video"]["denoiser"] == backbone.identity()["denoiser"]
    assert figures["geometry"]["reprojection"]["exact"]["mean"] > 0.98
    assert len(json.loads((output / "samples.json").read_text())["flow_jerk"]) == 2
    assert imread(output / "contact_sheet.png").shape[1] > 2 * 5 * SIDE

    faults = json.loads((output / "faults.json").read_text())
    assert len(faults["warped/predicted/reprojection"]) == 3
    assert figures["faults"]["warped"]["exact_auc"] == 1
    assert figures["faults"]["sliding"]["exact_auc"] == 0.5
    assert figures["faults"]["all"]["auc"]["count"] == 3
    assert imread(output / "faults.png").shape[1] > 2 * 3 * SIDE
    assert figures["frechet"]["clips"] == 5
    assert figures["frechet"]["components"] == 4
    assert figures["frechet"]["places"]["real"] == 0
    assert figures["frechet"]["places"]["noise"] == 1
    assert not (tmp_path / "out-features").exists()

    card = (output / "geometry" / "README.md").read_text()
    assert header_of(card)["license"] == "apache-2.0"
    count = sum(tensor.numel() for tensor in load_file(geometry_folder / "model.safetensors").values())
    assert f"{count:,}" in card
    assert "`train-geometry` took 1,800 optimizer steps, 1.00 hours" in card
    assert "clean clips above wobbling ones" in card
    assert "private" not in card
    video_card = (output / "video" / "README.md").read_text()
    assert header_of(video_card)["pipeline_tag"] == "text-to-video"
    assert "settings of `vggrpo world train-vae` were not recorded" in video_card
    assert "n = 5" in video_card
    assert not (geometry_folder / "README.md").exists()

    assert main(words) == 1
    assert "exists already" in capsys.readouterr().err


def test_cards_go_into_the_models_folders(tiny_pipeline, geometry_folder, tmp_path):
    video, geometry = tmp_path / "video", tmp_path / "geometry"
    shutil.copytree(tiny_pipeline, video)
    shutil.copytree(geometry_folder, geometry)
    before = load_video_backbone(video).identity()
    words = ["world", "evaluate", "--video", str(video), "--geometry", str(geometry), "--write-cards"]
    assert main([*words, "--output", str(tmp_path / "out"), *SIZE, *COUNTS, "--num-frechet", "0"]) == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["frechet"] is None
    for kind, folder in (("video", video), ("geometry", geometry)):
        card = (folder / "README.md").read_text()
        assert card == (tmp_path / "out" / kind / "README.md").read_text()
        assert "## Limits" in card
        assert ("100 % decoded noise | not measured" in card) == (kind == "video")
    assert load_video_backbone(video).identity() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--clips.num-frames", "10"), "num_frames is 10"),
        (("--geometry", "finer"), "the geometry model sees 16x16: exact geometry needs the same raster"),
        (("--video", "wan2.1-1.3b"), "a repository on a hub"),
        (("--train-runs", "nowhere"), "no run folder"),
        (("--num-frechet", "1"), "one clip has no covariance"),
    ],
)
def test_wrong_settings_leave_nothing(
    tiny_pipeline, geometry_folder, tmp_path, capsys, monkeypatch, flags, message
):
    monkeypatch.chdir(tmp_path)
    save_geometry(tmp_path / "finer", patch_size=4)
    words = ["world", "evaluate", "--video", str(tiny_pipeline), "--geometry", str(geometry_folder), *SIZE]
    assert main([*words, "--output", str(tmp_path / "out"), *COUNTS, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def frechet_settings(tiny_pipeline, geometry_folder, tmp_path):
    return WorldEvaluateSettings(
        output=tmp_path / "out",
        video=str(tiny_pipeline),
        geometry=str(geometry_folder),
        clips={"num_frames": FRAMES, "height": SIDE, "width": SIDE},
        num_frechet=SHARD_SIZE + 4,
        infer_steps=1,
        feature_cache=tmp_path / "features",
    )


def frechet_sets(settings):
    tools = load_instruments(settings)
    models = identities(tools, Path(settings.geometry))
    return FrechetSets(tools, "test", settings, models, settings.feature_cache)


def test_features_continue_after_an_interruption(frechet_settings, monkeypatch):
    def interrupted(self, captions, seeds):
        calls.append(len(captions))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return make(self, captions, seeds)

    whole = frechet_sets(frechet_settings.model_copy(update={"feature_cache": Path("elsewhere")}))
    make, calls = SampleMaker.__call__, []
    monkeypatch.chdir(frechet_settings.feature_cache.parent)
    monkeypatch.setattr(SampleMaker, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        frechet_sets(frechet_settings).features("samples")
    features = frechet_sets(frechet_settings).features("samples")
    assert calls == [8, 8, 8, 8, 4, 4], "the full shard was kept"
    torch.testing.assert_close(features, whole.features("samples"))

    with pytest.raises(ConfigError, match="infer_steps: 1 there, 2 now"):
        frechet_sets(frechet_settings.model_copy(update={"infer_steps": 2})).features("samples")


def test_sets_of_clips_are_what_they_are_called(frechet_settings):
    settings = frechet_settings.model_copy(update={"num_frechet": 3})
    sets, tools = frechet_sets(settings), load_instruments(settings)
    raster = {"num_frames": FRAMES, "height": SIDE, "width": SIDE}
    for name, place in (("axes", 0), ("reference", 1), ("real", 2)):
        scenes = [sample_scene("test", 3 * index + place) for index in range(3)]
        expected = tools.teacher.features(render_clips(scenes, **raster).frames[:, ::4])
        torch.testing.assert_close(sets.features(name), expected)
    seeds = [derive_seed(0, "world evaluate", "frechet", index) for index in range(3)]
    noise = initial_noise(seeds, tools.video.latent_shape(FRAMES, SIDE, SIDE))
    decoded = tools.video.decode_latents(noise).clamp(0, 1)
    torch.testing.assert_close(sets.features("noise"), tools.teacher.features(decoded[:, ::4]))


def test_ranking_of_clean_above_faulty_clips():
    rng = np.random.default_rng(0)
    clean, faulty = rng.normal(1, 1, 60), rng.normal(0, 1, (60, 2))
    found = ranking(clean, faulty)
    pairs = clean[:, None, None] > faulty
    assert found.mean == pytest.approx(pairs.mean())
    assert found.low < found.mean < found.high
    assert (found.count, found.missing) == (60, 0)
    assert ranking(clean, clean[:, None]).mean == 0.5

    faulty[:3, 0], clean[3] = np.nan, np.nan
    assert ranking(clean, faulty).missing == 4
    known = clean[np.isfinite(clean)][:, None] > faulty[np.isfinite(faulty)]
    assert ranking(clean, faulty).mean == pytest.approx(known.mean())
    assert np.isnan(ranking(np.full(5, np.nan), faulty[:5]).mean)


def test_figures_of_faults_by_kind_and_in_all():
    scenes = 4
    columns = {f"clean/{source}/reprojection": np.linspace(0.8, 0.9, scenes) for source in SOURCES}
    for kind, shift in (("warped", -0.2), ("wobbling", -0.01), ("sliding", 0.2)):
        columns[f"{kind}/exact/reprojection"] = columns["clean/exact/reprojection"]
        columns[f"{kind}/predicted/reprojection"] = columns["clean/predicted/reprojection"] + shift
    figures = fault_figures(columns, severity=1.0)
    assert figures["warped"]["auc"]["mean"] == 1
    assert figures["wobbling"]["auc"]["mean"] == pytest.approx(10 / 16)
    assert figures["wobbling"]["below_own"] == 1
    assert figures["sliding"]["auc"]["mean"] == 0
    assert figures["all"]["auc"]["mean"] == pytest.approx((16 + 10) / 48)
    assert figures["all"]["below_own"] == pytest.approx(2 / 3)
    assert figures["all"]["exact_auc"] == 0.5


def summarised(scene, clips):
    errors = geometry_errors(scene, clips.geometry)
    rewards = {"camera_motion": CameraMotionReward(), "reprojection": ReprojectionReward.robust()}
    columns = {name: value.double().numpy() for name, value in errors.items()}
    columns["is_shaky"] = clips.is_shaky.double().numpy()
    for source, seen in (("exact", clips.geometry), ("real", scene), ("autoencoded", scene)):
        for name, reward in rewards.items():
            columns[f"{source}/{name}"] = reward(seen).value.double().numpy()
    return geometry_figures(columns)


def test_exact_geometry_has_no_error_and_planted_errors_are_found(clips):
    truth = clips.geometry
    figures = summarised(truth, clips)
    assert figures["depth_abs_rel"]["mean"] == 0
    assert figures["rotation_deg"]["mean"] == pytest.approx(0, abs=0.05)
    assert figures["moving_flow"]["epe"] == 0
    assert figures["moving_flow"]["true_length"] > 0.05
    exact = CameraMotionReward()(truth).value
    separable = auc(exact[~clips.is_shaky].numpy(), exact[clips.is_shaky].numpy())
    assert figures["steady_shaky_auc"] == dict.fromkeys(
        ("exact", "predicted", "predicted_autoencoded"), separable
    )

    blind = dataclasses.replace(
        truth,
        depth_z=1.1 * truth.depth_z,
        scene_flow_from_ref=torch.zeros_like(truth.world_points),
        camera_to_world=torch.eye(4).expand_as(truth.camera_to_world),
    )
    figures = summarised(blind, clips)
    assert figures["depth_abs_rel"]["mean"] == pytest.approx(0.1, abs=1e-4)
    assert figures["rotation_deg"]["mean"] == pytest.approx(figures["true_rotation_deg"]["mean"], rel=1e-3)
    assert figures["moving_flow"]["share_of_true"] == pytest.approx(1)
    assert figures["steady_shaky_auc"]["predicted"] == 0.5


def test_loss_by_band_against_closed_forms(tiny_pipeline):
    video = load_video_backbone(tiny_pipeline)
    for name in ("weight", "bias"):
        getattr(video.transformer.proj_out, name).data.zero_()
    latents = torch.randn(6, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    embeds = video.encode_prompts(["a red box"] * 6)
    losses = velocity_losses(video, latents, embeds, range(6), seed=0)
    for low, high in SIGMA_BANDS:
        # A velocity of zero errs by var(noise) + var(x0); a linear one by what it leaves of that.
        assert losses[f"velocity_loss/{low:g}-{high:g}"].mean() == pytest.approx(2, rel=0.05)
        sigma = torch.linspace(low, high, 101)
        left = 2 - (2 * sigma - 1) ** 2 / (sigma**2 + (1 - sigma) ** 2)
        baseline = losses[f"velocity_baseline/{low:g}-{high:g}"]
        assert left.min() * 0.9 <= baseline.min() <= baseline.max() <= left.max() * 1.1
    alone = velocity_losses(video, latents[4:], embeds[4:], [4, 5], seed=0)
    for name, values in alone.items():
        torch.testing.assert_close(values, losses[name][4:])


def test_threshold_and_shares():
    assert best_threshold(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == (2.5, 1.0)
    threshold, accuracy = best_threshold(np.array([1.0, 3.0, 4.0]), np.array([0.0, 2.0]))
    assert (threshold, accuracy) == (2.5, pytest.approx((2 / 3 + 1) / 2))
    real, shaky = np.array([0.1, 0.2, 0.9, 1.0, np.nan]), np.array([False, False, True, True, True])
    figures = steadiness(real, shaky, np.array([0.0, 0.3, 0.8, np.nan]), higher_is_steady=False)
    assert figures["threshold"] == pytest.approx(0.55)
    assert figures["auc"] == 1
    assert figures["steady_share"] == {"samples": pytest.approx(2 / 3), "real": 0.5, "truly_steady": 0.5}
    one_kind = steadiness(real[:2], shaky[:2], np.array([0.0]), higher_is_steady=False)
    assert one_kind["steady_share"] is None
    assert one_kind["quantiles"]["real_shaky"] is None


def test_trainings_of_runs(geometry_run, tmp_path):
    training = trainings_of_runs([geometry_run])["train-geometry"]
    recipe = yaml.safe_load(training.recipe)
    assert recipe["output"] == "runs/train-geometry"
    assert validate(GeometrySettings, recipe, "the card").loop.steps == 1800
    with pytest.raises(ConfigError, match="two runs of train-geometry"):
        trainings_of_runs([geometry_run, geometry_run])
    again = tmp_path / "again"
    again.mkdir()
    continued = yaml.safe_load((geometry_run / "config.yaml").read_text()) | {"init": "somewhere/model"}
    (again / "config.yaml").write_text(yaml.safe_dump(continued))
    both = trainings_of_runs([geometry_run, again])
    assert list(both) == ["train-geometry", "train-geometry-finish"]
    assert yaml.safe_load(both["train-geometry-finish"].recipe)["init"] == "runs/train-geometry/model"
    (tmp_path / "config.yaml").write_text("steps: 3\n")
    with pytest.raises(ConfigError, match="settings of none of train-vae, train-video, train-geometry"):
        trainings_of_runs([tmp_path])


def test_packaged_recipes_are_the_fallback():
    trainings = packaged_trainings("micro")
    assert list(trainings) == [
        "train-vae",
        "train-vae-finish",
        "train-video",
        "train-video-finish",
        "train-geometry",
    ]
    assert trainings["train-video"].hours is None
    assert yaml.safe_load(trainings["train-video"].recipe)["vae"] == "runs/train-vae-finish/model"
    finish = trainings["train-vae-finish"]
    assert finish.command == "vggrpo world train-vae --recipe train-vae-finish.yaml"
    assert yaml.safe_load(finish.recipe)["init"] == "runs/train-vae/model"
    assert packaged_trainings(None) == {}


def test_contact_sheet_shows_the_frames(tmp_path):
    frames = torch.rand(3, 9, 6, 8, 3)
    captions = ["a red box " * 9, "a sphere", "two"]
    draw_contact_sheet(frames, captions, tmp_path / "sheet.png", frames_per_clip=3, columns=2, scale=4)
    sheet = imread(tmp_path / "sheet.png")[..., :3]
    left = MARGIN + 3 * 4 * 8 + MARGIN
    strip = sheet[MARGIN : MARGIN + 4 * 6, left : left + 3 * 4 * 8]
    expected = torch.cat([frames[1, 0], frames[1, 4], frames[1, 8]], dim=1).numpy()
    np.testing.assert_allclose(strip[2::4, 2::4], expected, atol=1 / 255)
    beneath = sheet[MARGIN + 4 * 6 : MARGIN + 4 * 6 + 14, left:]
    assert beneath.min() < 0.5, "no caption beneath the strip"
    with pytest.raises(ValueError, match="captions has 2 entries for 3 clips"):
        draw_contact_sheet(frames, captions[:2], tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()


def test_video_training_draws_samples_and_saves_float16(tiny_pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(video_training, "VALIDATION_CLIPS", 4)
    monkeypatch.setattr(video_training, "SHEET_STEPS", 2)
    settings = VideoSettings(
        output=tmp_path / "run",
        vae=tiny_pipeline / "vae",
        num_clips=4,
        clips={"num_frames": 5, "height": 16, "width": 16},
        architecture={
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 1,
            "ffn_dim": 16,
            "text_dim": 16,
            "text_layers": 1,
        },
        loop={"steps": 2, "batch_size": 2, "lr": 1e-3, "evaluate_every": 1, "checkpoint_every": 2},
    )
    folder = video_training.train_video(settings)
    sheets = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert sheets == ["step_000001.png", "step_000002.png"]
    tensors = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    assert tensors["blocks.0.attn1.to_q.weight"].dtype == torch.float16
    assert load_video_backbone(folder).latent_shape(5, 16, 16) == (4, 2, 4, 4)
