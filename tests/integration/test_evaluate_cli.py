"""`vggrpo evaluate` as a person runs it: videos of the world, a broken file, a reference, a continuation."""

import json
from pathlib import Path

import pytest
from commands import vggrpo

from vggrpo.evaluation.videos import ClipResults


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered clips and one truncated file, under `ours`; the clips again under `base`."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("ours", "base"):
        rendered = vggrpo(
            *("world", "render", "--output", folder / name, "--split", "test", "--count", 3),
            *("--num-frames", 9),
        )
        assert rendered.status == 0, rendered.err
    whole = (folder / "ours" / "test_000000.mp4").read_bytes()
    (folder / "ours" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


def test_evaluate_measures_reports_and_continues(videos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = (
        *("evaluate", videos / "ours", "--output", output, "--reference", videos / "base"),
        *("--metrics", "dynamics", "features", "--geometry-model", "micro", "--geometry-side", 64),
        *("--batch-size", 2),
    )
    found = vggrpo(*command)
    assert found.status == 1, found.err
    assert "failed: cut.mp4: is truncated" in found.out
    assert "4 clips, 1 failed" in found.out
    assert "Camera smoothness" in found.out
    assert (output / "config.yaml").is_file()
    records = ClipResults(output).load()
    assert [records[name]["status"] for name in sorted(records)] == ["failed", "ok", "ok", "ok"]
    assert all(
        value is not None
        for record in records.values()
        if record["status"] == "ok"
        for value in record["metrics"].values()
    )
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["num_clips"], summary["num_failed"]) == (4, 1)
    assert summary["command"].startswith("vggrpo evaluate ")
    assert summary["metrics"]["mvcs"]["all"]["n"] == 3
    difference = summary["reference"]["mvcs"]["all"]
    assert difference == pytest.approx({"mean": 0, "low": 0, "high": 0, "n": 3}, abs=1e-6)
    assert (output / "report.html").is_file()
    assert set(summary["not_run"]) >= {"epipolar_error"}

    refused = vggrpo(*command)
    assert refused.status == 1
    assert "already holds a run; add --resume" in refused.err
    before = (output / "clips.jsonl").read_text()
    (videos / "ours" / "cut.mp4").write_bytes((videos / "ours" / "test_000001.mp4").read_bytes())
    again = vggrpo(*command, "--resume")
    assert again.status == 0, again.err
    after = ClipResults(output).load()
    assert before.splitlines()[1:] == (output / "clips.jsonl").read_text().splitlines()[1:]
    assert after["cut.mp4"]["metrics"] == pytest.approx(after["test_000001.mp4"]["metrics"])


def test_wrong_settings_end_with_status_2(tmp_path: Path) -> None:
    absent = vggrpo("evaluate", tmp_path / "absent", "--output", tmp_path / "out")
    assert absent.status == 2
    assert "neither a folder of videos nor a manifest" in absent.err
    assert not (tmp_path / "out").exists()
