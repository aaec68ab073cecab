"""`vggrpo evaluate` with VideoReward and VBench, as a person runs it: tiny weights, no network."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import vggrpo

from stand_in_vbench import make_installer
from tiny_video_reward import TinyVideoReward, make_video_reward
from vggrpo.cli.main import main
from vggrpo.evaluation.videos import ClipResults
from vggrpo.io import write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prompts with two seeds each, under `ours` and `base`; one clip is the same in both."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("ours", "base")):
        (folder / name).mkdir()
        for clip in range(4):
            rng = np.random.default_rng(clip if clip == 0 else 10 * clip + number)
            path = folder / name / f"{clip}.mp4"
            write_video(path, rng.integers(0, 256, (9, 64, 96, 3), dtype=np.uint8), fps=8.0)
            words = {"prompt": f"scene {clip // 2}", "prompt_id": f"p{clip // 2}", "seed": clip % 2}
            path.with_suffix(".json").write_text(
                json.dumps({**words, "kind": ["static", "dynamic"][clip // 2]})
            )
    return folder


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> TinyVideoReward:
    return make_video_reward(tmp_path_factory.mktemp("reward"))


def command(videos: Path, reward: TinyVideoReward, output: Path, *more: object) -> tuple[object, ...]:
    return (
        *("evaluate", videos / "ours", "--reference", videos / "base", "--output", output),
        *("--metrics", "dynamics", "--video-reward", reward.folder, "--video-reward-base", reward.base),
        *("--workers", 0, "--batch-size", 2, "--device", "cpu", *more),
    )


def test_judges_from_setup_to_report(
    videos: Path, reward: TinyVideoReward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VGGRPO_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "out"
    dimensions = ("--vbench", "temporal_flickering", "subject_consistency")

    without = vggrpo(*command(videos, reward, output, *dimensions))
    assert without.status == 0, without.err
    summary = json.loads((output / "summary.json").read_text())
    assert "--setup vbench" in summary["not_run"]["vbench_temporal_flickering"]
    assert "vbench_temporal_flickering" not in summary["metrics"]
    assert "--vbench does not name it" in summary["not_run"]["vbench_dynamic_degree"]

    made = vggrpo("evaluate", "--setup", "vbench", "--python", make_installer(tmp_path), "--device", "cpu")
    assert made.status == 1, made.err
    assert "5 of 7 dimensions can be measured" in made.out
    again = vggrpo(*command(videos, reward, output, *dimensions, "--resume", "--video-reward-tie", 0.05))
    assert again.status == 0, again.err
    summary = json.loads((output / "summary.json").read_text())
    assert "dino.pth" in summary["not_run"]["vbench_subject_consistency"]
    assert summary["metrics"]["vbench_temporal_flickering"]["all"]["n"] == 4
    assert "VideoReward: motion quality" in again.out

    scores = [record["metrics"]["videoreward_mq"] for record in ClipResults(output).load().values()]
    reference = ClipResults(output / "reference").load().values()
    margins = np.subtract(scores, [record["metrics"]["videoreward_mq"] for record in reference])
    rate = summary["win_rates"]["videoreward_mq"]["all"]
    wins, ties = (margins > 0.05).sum(), (np.abs(margins) <= 0.05).sum()
    assert ties >= 1, "the clip that both folders share is a tie"
    assert (rate["wins"], rate["ties"], rate["losses"]) == (wins, ties, 4 - wins - ties)
    assert rate["mean"] == pytest.approx((wins + ties / 2) / 4)
    assert summary["win_rates"]["videoreward_mq"]["static"]["n"] == 2
    assert "vbench_temporal_flickering" not in summary["win_rates"], "it has no better direction"
    page = (output / "report.html").read_text()
    assert "Win rates" in page
    assert "Wins</th>" in page


def test_another_prompt_is_another_score(
    videos: Path, reward: TinyVideoReward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VGGRPO_CACHE", str(tmp_path / "cache"))
    manifest, output = tmp_path / "clips.jsonl", tmp_path / "out"

    def evaluate(prompt: str | None, *more: object) -> dict[str, float | None]:
        manifest.write_text(json.dumps({"path": str(videos / "ours" / "0.mp4"), "prompt": prompt}))
        found = vggrpo(
            *("evaluate", manifest, "--output", output, "--metrics", "dynamics", "--workers", 0),
            *("--video-reward", reward.folder, "--video-reward-base", reward.base, "--device", "cpu", *more),
        )
        assert found.status == 0, found.err
        (record,) = ClipResults(output).load().values()
        return {name: record["metrics"][f"videoreward_{name}"] for name in ("vq", "mq", "ta")}

    silent = evaluate(None)
    assert silent["ta"] is None
    first, second = evaluate("a lamp", "--resume"), evaluate("a red ball", "--resume")
    assert first["ta"] is not None
    assert first["ta"] != second["ta"]
    assert first["vq"] == pytest.approx(silent["vq"], abs=1e-5)
    assert evaluate("a red ball", "--resume") == second


def test_a_checkpoint_that_is_not_there_stops_before_anything_is_made(
    videos: Path, reward: TinyVideoReward, tmp_path: Path
) -> None:
    absent = vggrpo(*command(videos, reward, tmp_path / "out", "--video-reward", tmp_path))
    assert absent.status == 1
    assert "model_config.json" in absent.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("words", "expected"), [((), "--setup vbench"), (("--setup", "vbench"), "--python")])
def test_help_names_the_setup(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *words, "--help"])
    assert ended.value.code == 0
    assert expected in capsys.readouterr().out
