"""`vggrpo evaluate-geometry` through the entry point, on tiny models with random weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_models import tiny_any4d_config, tiny_vggt
from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.backbones.any4d import Any4D
from vggrpo.cli.main import main
from vggrpo.evaluation.geometry_metrics import FLOW_METRICS, GEOMETRY_METRICS, geometry_metrics
from vggrpo.io import save_tensors
from vggrpo.lgm import Connector, LatentGeometryModel
from vggrpo.world import render_clips, sample_scene
from vggrpo.world.export import export_clips

SIDE, FRAMES, CLIPS, NOISY = 16, 9, 3, 2
RASTER = ("--raster.height", SIDE, "--raster.width", SIDE, "--raster.num-frames", FRAMES)
LEVELS = ("--noise-levels", 0, 0.5, "--noise-clips", NOISY)


@pytest.fixture(scope="module")
def models(tiny_pipeline, tmp_path_factory) -> Path:
    """A folder with a `geometry` model, one without flow, `vggt`, and an `lgm`."""
    folder = tmp_path_factory.mktemp("models")
    generator = torch.Generator().manual_seed(0)
    geometry = Any4D(tiny_any4d_config())
    geometry.reset_parameters(depth=3.0, generator=generator)
    with torch.no_grad():
        for parameter in geometry.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    for name, model in (("geometry", geometry), ("vggt", tiny_vggt())):
        (folder / name).mkdir()
        model.save_pretrained(folder / name)
    point = geometry.stitch_point("E1")
    connector = Connector(4, point.width, (2, 2), point.num_special_tokens)
    spec = load_video_backbone(tiny_pipeline).latent_spec
    lgm = LatentGeometryModel(geometry, connector, "E1", spec, str(tiny_pipeline), "tiny")
    lgm.save_pretrained(folder / "lgm")
    return folder


@pytest.fixture(scope="module")
def run(models, tiny_pipeline):
    def evaluate(output: Path, *words: object) -> int:
        flags = ("--base-model", tiny_pipeline, "--output", output)
        recipe = models / "recipe.yaml"
        recipe.write_text("{}\n")
        return main(["evaluate-geometry", *map(str, ("--recipe", recipe, *words, *flags))])

    return evaluate


@pytest.fixture(scope="module")
def both(models) -> tuple[object, ...]:
    """The flags of all readings of the world."""
    return (
        *("--geometry-model", models / "geometry", "--lgm-path", models / "lgm"),
        *("--num-clips", CLIPS, "--batch-size", 2, *RASTER, *LEVELS),
    )


@pytest.fixture(scope="module")
def evaluated(run, both, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("evaluated") / "out"
    assert run(output, *both) == 0
    return output


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]


def values(metrics: dict[str, torch.Tensor], row: int) -> dict[str, float | None]:
    numbers = {name: metrics[name][row].item() for name in metrics}
    return {name: None if number != number else number for name, number in numbers.items()}


def assert_same(found: dict[str, float | None], expected: dict[str, float | None], rel: float = 1e-4) -> None:
    assert {name for name, value in found.items() if value is None} == {
        name for name, value in expected.items() if value is None
    }
    for name, value in expected.items():
        if value is not None:
            # A pair whose error is a hair from a whole degree may count on either side.
            assert found[name] == pytest.approx(value, rel=rel, abs=1e-4), name


@torch.no_grad()
def test_every_reading_is_measured_against_the_truth(evaluated, models, tiny_pipeline):
    scenes = [sample_scene("test", index) for index in range(CLIPS)]
    clips = render_clips(scenes, height=SIDE, width=SIDE, num_frames=FRAMES)
    truth = clips.geometry.select([0, 4, 8])
    video, model = load_video_backbone(tiny_pipeline), load_geometry_backbone(models / "geometry")
    latents = video.encode_video(clips.frames)
    readings = {
        "pixels": model(clips.frames[:, ::4]),
        "decoded": model(video.decode_latents(latents)[:, ::4]),
        "latents": LatentGeometryModel.from_pretrained(models / "lgm")(latents),
    }
    for name, scene in readings.items():
        metrics, found = geometry_metrics(scene, truth), lines(evaluated / name)
        assert [record["clip"] for record in found] == [f"test_{index:06d}" for index in range(CLIPS)]
        for row, record in enumerate(found):
            assert tuple(record["metrics"]) == GEOMETRY_METRICS
            assert_same(record["metrics"], values(metrics, row))
            assert record["kind"] == ("dynamic" if scenes[row].is_dynamic else "static")
            assert record["prompt"] == scenes[row].caption
            assert len(record["pair_error_deg"]) == 3
        summary = json.loads((evaluated / name / "summary.json").read_text())
        mean = metrics["aligned_depth_abs_rel"].mean().item()
        assert summary["metrics"]["aligned_depth_abs_rel"]["all"]["mean"] == pytest.approx(mean, rel=1e-4)
        if name == "pixels":
            assert summary["reference"] is None
            first = mean
        else:
            difference = summary["reference"]["aligned_depth_abs_rel"]["all"]["mean"]
            assert difference == pytest.approx(mean - first, rel=1e-3)
    assert (evaluated / "geometry.png").read_bytes().startswith(b"\x89PNG")


def test_the_accuracy_curve_has_the_auc_as_its_mean(evaluated):
    figures = json.loads((evaluated / "evaluation.json").read_text())
    for reading in figures["readings"].values():
        curve = reading["accuracy"]
        assert len(curve) == 30
        assert curve == sorted(curve)
        assert sum(curve) / 30 == pytest.approx(reading["metrics"]["pose_auc_30"]["all"]["mean"], abs=1e-3)


def test_the_noise_curve_starts_at_the_clean_readings_and_leaves_them(evaluated):
    noise = json.loads((evaluated / "evaluation.json").read_text())["noise"]
    assert (noise["clips"], noise["levels"]) == (NOISY, [0.0, 0.5])
    for reading in ("latents", "decoded"):
        clean = [record["metrics"] for record in lines(evaluated / reading)[:NOISY]]
        under_noise = [record["levels"] for record in lines(evaluated / "noise")]
        for levels, metrics in zip(under_noise, clean, strict=True):
            assert_same(levels[0][reading]["metrics"], metrics)
            assert levels[1][reading]["metrics"] != levels[0][reading]["metrics"]
        curve = noise["errors"]["aligned_depth_abs_rel"][reading]
        mean = sum(metrics["aligned_depth_abs_rel"] for metrics in clean) / NOISY
        assert curve[0]["mean"] == pytest.approx(mean, rel=1e-4)
        assert curve[1]["count"] == NOISY
    for points in noise["rewards"].values():
        assert [point["level"] for point in points] == [0.0, 0.5]
        assert points[0]["teacher"]["error"]["mean"] in (0, None)


def test_a_resumed_evaluation_makes_what_is_missing_and_nothing_else(run, both, evaluated, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(evaluated, output)
    whole = {name: lines(output / name) for name in ("pixels", "latents", "noise")}
    for name, before in whole.items():
        (output / name / "clips.jsonl").write_text(json.dumps(before[0] | {"mark": "kept"}) + "\n")
    assert run(output, *both, "--resume") == 0
    for name, before in whole.items():
        after = lines(output / name)
        assert ["mark" in record for record in after] == [True] + [False] * (len(before) - 1)
        assert [record["clip"] for record in after] == [record["clip"] for record in before]
        for record, old in zip(after, before, strict=True):
            if name == "noise":
                for level, old_level in zip(record["levels"], old["levels"], strict=True):
                    assert_same(level["latents"]["metrics"], old_level["latents"]["metrics"])
            else:
                assert_same(record["metrics"], old["metrics"])


def test_another_model_of_the_same_name_is_refused(run, models, tmp_path, capsys):
    geometry = tmp_path / "geometry"
    geometry.mkdir()
    load_geometry_backbone(models / "vggt").save_pretrained(geometry)
    words = ("--geometry-model", geometry, "--num-clips", 1, *RASTER)
    assert run(tmp_path / "out", *words) == 0
    changed = load_geometry_backbone(geometry)
    with torch.no_grad():
        next(iter(changed.parameters())).add_(1)
    changed.save_pretrained(geometry)
    assert run(tmp_path / "out", *words, "--resume") == 1
    assert "made from other clips or models of the same names" in capsys.readouterr().err


@torch.no_grad()
def test_a_model_without_flow_says_so(run, models, tmp_path, capsys):
    assert run(tmp_path / "out", "--geometry-model", models / "vggt", "--num-clips", 2, *RASTER) == 0
    summary = json.loads((tmp_path / "out" / "pixels" / "summary.json").read_text())
    assert set(summary["not_run"]) == set(FLOW_METRICS)
    assert not set(FLOW_METRICS) & set(summary["metrics"])
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert figures["noise"] is None
    assert "Pose AUC@30" in capsys.readouterr().out
    assert not (tmp_path / "out" / "noise").exists()


def test_rendered_clips_are_measured_like_the_world_they_are_of_and_bad_ones_are_named(
    run, both, models, evaluated, tmp_path, capsys
):
    folder = tmp_path / "clips"
    folder.mkdir()
    scenes = [sample_scene("test", index) for index in range(2)]
    export_clips(folder, scenes, render_clips(scenes, height=SIDE, width=SIDE, num_frames=FRAMES), 8.0)
    wide = [sample_scene("test", 2)]
    export_clips(folder, wide, render_clips(wide, height=SIDE, width=SIDE + 2, num_frames=FRAMES), 8.0)
    save_tensors(folder / "alone.safetensors", {"latents": torch.zeros(1)})
    save_tensors(folder / "other.safetensors", {"latents": torch.zeros(1)})
    (folder / "other.mp4").write_bytes((folder / "test_000000.mp4").read_bytes())
    assert run(tmp_path / "out", *both[:4], "--clips", folder, *LEVELS) == 1
    printed = capsys.readouterr().out
    found = {record["clip"]: record for record in lines(tmp_path / "out" / "latents")}
    assert {name for name, record in found.items() if record["status"] == "ok"} == {
        "test_000000",
        "test_000001",
    }
    assert "there is no video file" in found["alone"]["reason"]
    assert "other.safetensors holds no scene's geometry" in found["other"]["reason"]
    assert "width is 18" in found["test_000002"]["reason"]
    assert all(f"failed: {name}: " in printed for name in ("alone", "other", "test_000002"))
    assert "5 clips, 3 failed" in printed
    assert found["test_000000"]["path"] == str(folder / "test_000000.mp4")
    # A clip that is put right is measured by resuming.
    (folder / "alone.safetensors").unlink()
    export_clips(folder, wide, render_clips(wide, height=SIDE, width=SIDE, num_frames=FRAMES), 8.0)
    assert run(tmp_path / "out", *both[:4], "--clips", folder, *LEVELS, "--resume") == 1
    found = {record["clip"]: record for record in lines(tmp_path / "out" / "latents")}
    assert found["test_000002"]["status"] == "ok"
    assert set(found) == {"other", "test_000000", "test_000001", "test_000002"}
    export_clips(folder, wide, render_clips(wide, height=SIDE, width=SIDE + 2, num_frames=FRAMES), 8.0)
    # The uncut model alone takes any size, on the nearest raster of whole patches.
    assert run(tmp_path / "rgb", *both[:2], "--clips", folder) == 1
    by_pixels = {record["clip"]: record for record in lines(tmp_path / "rgb" / "pixels")}
    assert by_pixels["test_000002"]["status"] == "ok"
    exact = lines(evaluated / "pixels")[0]["metrics"]
    depth = by_pixels["test_000000"]["metrics"]["aligned_depth_abs_rel"]
    assert depth == pytest.approx(exact["aligned_depth_abs_rel"], rel=0.1)  # of a compressed video


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "there is nothing to measure"),
        (("--geometry-model", "G", "--clips", "nowhere"), "neither world nor a folder"),
        (("--geometry-model", "G", "--noise-levels", 0.1, 0.2), "rising numbers, the first of them 0"),
        (("--lgm-path", "L", "--view-stride", 2, *RASTER), "set --view-stride 4"),
        (("--lgm-path", "L", "--raster.num-frames", 10), "num_frames is 10"),
        (("--lgm-path", "L", "--base-model", "micro"), "has another autoencoder"),
    ],
)
def test_wrong_settings_are_found_before_anything_is_made(
    models, tiny_pipeline, tmp_path, capsys, words, message
):
    names = {"G": models / "geometry", "L": models / "lgm"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"base_model: {tiny_pipeline}\n")
    flags = ("--recipe", recipe, "--output", tmp_path / "out")
    argv = [str(names.get(word, word)) for word in (*words, *flags)]
    assert main(["evaluate-geometry", *argv]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_readings_can_be_compared(evaluated, capsys):
    assert main(["compare", str(evaluated / "pixels"), str(evaluated / "latents")]) == 0
    printed = capsys.readouterr().out
    assert "Pose AUC@30" in printed
    assert f"n={CLIPS}" in printed
