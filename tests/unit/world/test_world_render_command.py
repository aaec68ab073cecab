import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vggrpo.cli.main import main
from vggrpo.geometry import SceneGeometry
from vggrpo.io import load_metadata, load_tensors, read_video, verify_manifest
from vggrpo.world import render_clips, sample_scene

OPTIONS = ["world", "render", "--split", "validation", "--count", "3", "--start", "2", "--batch-size", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("render") / "clips"
    assert main([*OPTIONS, "--output", str(path)]) == 0
    return path


def test_every_clip_is_a_video_a_geometry_and_a_caption(folder: Path) -> None:
    verify_manifest(folder)
    records = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
    assert [record["index"] for record in records] == [2, 3, 4]
    for record in records:
        spec = sample_scene("validation", record["index"])
        stem = folder / record["name"]
        assert stem.with_suffix(".txt").read_text() == spec.caption + "\n" == record["caption"] + "\n"
        assert load_metadata(stem.with_suffix(".safetensors")) == record
        assert (record["is_shaky"], record["is_dynamic"]) == (spec.is_shaky, spec.is_dynamic)
        clips = render_clips([spec])
        written = SceneGeometry.from_dict(load_tensors(stem.with_suffix(".safetensors"))).as_dict()
        for name, tensor in clips.geometry.as_dict().items():
            assert torch.equal(written[name], tensor)
        frames, fps = read_video(stem.with_suffix(".mp4"))
        assert fps == 8
        error = np.abs(frames / 255 - clips.frames[0].numpy())
        assert frames.shape == (17, 48, 64, 3)
        assert error.mean() < 0.03


def test_a_finished_folder_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert main([*OPTIONS, "--output", str(folder)]) == 1
    assert "already holds a run; add --resume" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_resume_renders_what_is_missing(folder: Path, tmp_path: Path) -> None:
    part = tmp_path / "clips"
    part.mkdir()
    kept = ("config.yaml", "validation_000002.safetensors", "validation_000002.txt")
    for name in kept:
        (part / name).write_bytes((folder / name).read_bytes())
    (part / "validation_000002.mp4").write_text("kept as it is")
    assert main([*OPTIONS, "--output", str(part), "--resume"]) == 0
    assert (part / "validation_000002.mp4").read_text() == "kept as it is"
    for name in ("validation_000004.safetensors", "validation_000004.txt", "clips.jsonl"):
        assert (part / name).read_bytes() == (folder / name).read_bytes()
    assert read_video(part / "validation_000004.mp4")[0].shape == (17, 48, 64, 3)
    verify_manifest(part)


def test_resuming_with_other_settings_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OPTIONS, "--height", "24", "--output", str(folder), "--resume"]) == 1
    assert "height: 48 in the run, 24 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [["--height", "47"], ["--count", "0"], ["--split", "trains"], ["--cuont", "1"]]
)
def test_bad_flags_leave_nothing_behind(tmp_path: Path, flags: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["world", "render", "--output", str(tmp_path / "clips"), *flags])
    assert not (tmp_path / "clips").exists()
