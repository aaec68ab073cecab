import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_folder import FPS, FRAMES, NAMES, NAN, fail, make_records, write_clip, write_evaluation
from page_tags import Tags, assert_self_contained

import headless_chromium
from vggrpo.config import ConfigError
from vggrpo.evaluation.folder_report import videos as folder_videos
from vggrpo.evaluation.folder_report import write_folder_report
from vggrpo.evaluation.folder_report.cases import choose_cases
from vggrpo.evaluation.folder_report.contents import read_contents
from vggrpo.evaluation.intervals import bootstrap_mean
from vggrpo.evaluation.report.shown import SHOWN_HEIGHT, read_shown, shown_box
from vggrpo.evaluation.report.strips import Strip, strip_chart
from vggrpo.io import read_video

needs_chromium = pytest.mark.skipif(headless_chromium.EXECUTABLE is None, reason="no Chromium is installed")


def values(count: int, shift: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.4, 0.6, count) + shift for name in NAMES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 clips against a reference: better by the error, worse by the consistency; one clip has failed."""
    root = tmp_path_factory.mktemp("evaluation")
    write_clip(root / "own.mp4", 200)
    write_clip(root / "base.mp4", 40)
    before, after = values(16), values(16)
    after["epipolar_robust_error"] = before["epipolar_robust_error"] - 0.1
    after["feature_consistency"] = before["feature_consistency"] - 0.1
    after["epipolar_robust_error"][5] -= 0.3
    after["epipolar_robust_error"][6] += 0.3
    after["flow_magnitude"] = before["flow_magnitude"] - 0.05
    records = make_records(after, root / "own.mp4")
    fail(records[9], "is truncated <at> 50 %")
    records[3]["notes"] = records[4]["notes"] = ["epipolar: nothing moves"]
    return write_evaluation(root / "out", records, make_records(before, root / "base.mp4"))


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return write_folder_report(folder).read_text("utf-8")


def test_the_page_is_whole_and_refers_to_nothing_outside_itself(page: str) -> None:
    assert_self_contained(page)
    sections = [a["id"] for tag, a in Tags(page).found if tag == "section"]
    assert sections == ["figures", "plots", "pairs", "videos", "failures", "settings"]
    assert "<b>red</b>" not in page
    assert "is truncated &lt;at&gt; 50 %" in page


def test_the_same_results_make_the_same_page(folder: Path, page: str) -> None:
    assert write_folder_report(folder).read_text("utf-8") == page


def test_figures_are_those_of_the_summary(folder: Path, page: str) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    text = " ".join(Tags(page).text)
    mean = summary["metrics"]["epipolar_robust_error"]["all"]
    change = summary["reference"]["feature_consistency"]["static"]
    assert mean["n"] == 15
    assert f"{mean['mean']:.3f}" in text
    assert f"[{mean['low']:.3f}, {mean['high']:.3f}]" in text
    assert f"\u2212{-change['mean']:.3f}" in text
    assert "Against base, of 2 metrics: 1 better and 1 worse." in text
    assert "Less moves than in the reference" in text
    assert "no --geometry-model was given" in text
    assert "1 of 16 clips could not be measured" in text
    assert "2 clips, first p1_seed1.mp4" in text
    (command,) = re.findall(r'<pre id="command">(.*?)</pre>', page)
    assert command.startswith("vggrpo evaluate ours --output")


def test_the_most_improved_and_worsened_pairs_are_shown_and_failed_ones_are_not(folder: Path) -> None:
    contents = read_contents(folder)
    cases = choose_cases(contents)
    assert cases.ranked_by[0].name == "epipolar_robust_error"
    extremes = {reason: contents.own.clips[case.place].name for case in cases.all for reason in case.reasons}
    assert extremes["gained most: Epipolar error (robust)"] == "p2_seed1.mp4"
    assert extremes["lost most: Epipolar error (robust)"] == "p3_seed0.mp4"
    # By the consistency every clip lost, the best one too.
    assert {reason.split(":")[0] for reason in extremes if "consistency" in reason} <= {
        "lost least",
        "lost most",
    }
    assert len(cases.drawn) == 4
    places = [case.place for case in cases.all]
    assert len(set(places)) == len(places)
    assert 9 not in places
    assert cases == choose_cases(contents)


def test_a_pair_is_one_video_with_the_reference_at_the_left(page: str, tmp_path: Path) -> None:
    sources = Tags(page).attribute("video", "src")
    assert 4 < len(sources) <= 12
    (tmp_path / "pair.mp4").write_bytes(base64.b64decode(str(sources[0]).split(",", 1)[1]))
    frames, fps = read_video(tmp_path / "pair.mp4")
    assert (frames.shape, fps) == ((FRAMES, SHOWN_HEIGHT, 2 * 384, 3), FPS)
    for side, brightness in ((frames[:, :, :384], 40), (frames[:, :, 384:], 200)):
        np.testing.assert_allclose(side.mean((1, 2, 3)), brightness + np.arange(FRAMES), atol=2.5)


def test_shown_frames_are_picked_by_time_and_the_last_one_rests(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", 100, frames=9)
    shown = read_shown(tmp_path / "clip.mp4", (48, 64), fps=4.0, length=7, file_fps=8.0)
    assert shown.shape == (7, 48, 64, 3)
    np.testing.assert_allclose(shown.mean((1, 2, 3)), 100 + np.array([0, 2, 4, 6, 8, 8, 8]), atol=1.6)
    slow = read_shown(tmp_path / "clip.mp4", (48, 64), fps=16.0, length=4, file_fps=8.0)
    np.testing.assert_allclose(slow.mean((1, 2, 3)), 100 + np.array([0, 0, 1, 1]), atol=1.6)


def test_clips_of_different_shapes_share_a_box_without_being_stretched(tmp_path: Path) -> None:
    write_clip(tmp_path / "tall.mp4", 200, size=(32, 16))
    box = shown_box([(32, 16), (24, 32)])
    assert box == (SHOWN_HEIGHT, 384)
    (image,) = read_shown(tmp_path / "tall.mp4", box, FPS, 1)
    lit = image.mean(-1) > 100
    assert (lit.any(1).sum(), lit.any(0).sum()) == (SHOWN_HEIGHT, SHOWN_HEIGHT // 2)
    assert lit[:, 119:265].any()


def test_a_folder_without_reference_shows_means_and_its_best_and_worst_clips(tmp_path: Path) -> None:
    write_clip(tmp_path / "own.mp4", 90)
    columns = values(12)
    columns["feature_consistency"][7] = 0.99
    page = write_folder_report(
        write_evaluation(tmp_path / "out", make_records(columns, tmp_path / "own.mp4"))
    ).read_text("utf-8")
    assert_self_contained(page)
    text = " ".join(Tags(page).text)
    assert "best: Feature consistency" in text
    assert "worst: Epipolar error (robust)" in text
    assert 'id="pairs"' not in page
    assert 'class="pair single"' in page
    assert "Change, 95 % interval" not in text


def test_videos_that_are_gone_are_named_in_place_of_shown(tmp_path: Path) -> None:
    page = write_folder_report(write_evaluation(tmp_path, make_records(values(6)))).read_text("utf-8")
    assert "<video" not in page
    assert 'id="play"' not in page
    assert "No video: there is no video file /nowhere/p" in page


def test_a_thousand_clips_make_a_page_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "own.mp4", 90)
    records = make_records(values(1000), tmp_path / "own.mp4")
    for record in records[500:]:
        fail(record, f"is truncated ({record['clip']})")
    write_evaluation(tmp_path / "out", records, make_records(values(1000, seed=1), tmp_path / "own.mp4"))
    page = write_folder_report(tmp_path / "out").read_text("utf-8")
    assert page.count("<video") <= 12
    assert len(page) < 1_500_000
    assert "300 more clips: see clips.jsonl" in page
    monkeypatch.setattr(folder_videos, "MOST_BYTES", 20_000)
    light = write_folder_report(tmp_path / "out").read_text("utf-8")
    assert 0 < light.count("<video") < page.count("<video")
    assert "Not embedded, to keep this file below" in light


@pytest.mark.parametrize("failed", [0, 1, 4])
def test_few_or_no_measured_clips_still_make_a_page(tmp_path: Path, failed: int) -> None:
    records = make_records({"flow_jerk": [0.5, NAN, 0.5, 0.5], "mvcs": [NAN] * 4})
    for record in records[:failed]:
        fail(record, "contains no frames")
    page = write_folder_report(write_evaluation(tmp_path, records)).read_text("utf-8")
    assert_self_contained(page)
    assert page.count("contains no frames") == failed


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no evaluation"):
        write_folder_report(tmp_path)


def test_strips_put_means_and_intervals_to_scale_and_count_outliers() -> None:
    clips = np.concatenate([np.linspace(0.0, 1.0, 21), [50.0]])
    strip = Strip("all", "tone-after", bootstrap_mean(clips[:21]), clips, "ours")
    tags = Tags(strip_chart([strip], "test", 3))
    assert "1 beyond" in tags.text
    (rug,) = [a["d"] for tag, a in tags.found if tag == "path"]
    places = [float(x) for x in re.findall(r"M([\d.]+) ", str(rug))]
    assert len(places) == 21
    (dot,) = [float(str(a["cx"])) for tag, a in tags.found if tag == "circle"]
    assert dot == pytest.approx(np.mean(places), abs=0.1)
    (low, high) = next(
        (float(str(a["x1"])), float(str(a["x2"]))) for _, a in tags.found if "span" in str(a.get("class"))
    )
    scale = (places[-1] - places[0]) / 1.0
    assert (high - low) / scale == pytest.approx(strip.mean.high - strip.mean.low, abs=0.002)


VIDEOS = "[...document.querySelectorAll('video')]"


@pytest.fixture(scope="module")
def browser(folder: Path, page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with headless_chromium.Page(tmp_path_factory.mktemp("browser")) as browser:
        browser.open(folder / "report.html")
        browser.wait_for(f"{VIDEOS}.every(v => v.readyState >= 3)")
        yield browser


@needs_chromium
def test_the_browser_plays_all_pairs_on_one_clock_and_loads_nothing(browser: headless_chromium.Page) -> None:
    browser.wait_for(f"{VIDEOS}.every(v => !v.paused && v.currentTime > 0)")
    browser.evaluate("document.getElementById('play').click()")
    browser.wait_for(f"{VIDEOS}.every(v => v.paused && !v.seeking)")
    times = browser.evaluate(f"{VIDEOS}.map(v => v.currentTime)")
    assert np.ptp(times) < 1e-3
    time.sleep(0.2)
    assert browser.evaluate(f"{VIDEOS}.map(v => v.currentTime)") == times
    assert [url for url in browser.requests if not url.startswith(("data:", "file:"))] == []
    assert browser.console == []


@needs_chromium
@pytest.mark.parametrize("width", [1366, 400])
def test_nothing_sticks_out_of_the_window(browser: headless_chromium.Page, width: int) -> None:
    browser.resize(width, 800)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
