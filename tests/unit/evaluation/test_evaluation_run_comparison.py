import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from evaluation_folder import FPS, FRAMES, NAN, fail, make_records, write_clip, write_evaluation
from page_tags import Tags, assert_self_contained

import headless_chromium
from vggrpo.config import ConfigError
from vggrpo.evaluation import EvaluationRecords, describe, paired_difference, unpaired_difference
from vggrpo.evaluation.evaluated import EvaluatedClips, read_evaluation
from vggrpo.evaluation.run_comparison import (
    Cell,
    RunComparison,
    compare_runs,
    comparison_json,
    comparison_markdown,
    comparison_page,
    published_figures,
)
from vggrpo.io import read_video

needs_chromium = pytest.mark.skipif(headless_chromium.EXECUTABLE is None, reason="no Chromium is installed")

COUNT = 24
CLUSTERS = [f"p{i // 2}" for i in range(COUNT)]


def column(shift: float = 0.0, noise: int | None = None, scale: float = 0.05) -> np.ndarray:
    """Values that differ much between clips; `noise` adds a little that is a run's own."""
    values = np.random.default_rng(0).uniform(0.2, 0.8, COUNT) + shift
    if noise is not None:
        values = values + np.random.default_rng(noise).normal(0, scale, COUNT)
    return values


MakeRun = Callable[..., EvaluatedClips]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(label: str, columns: Mapping[str, np.ndarray], **changed: object) -> EvaluatedClips:
        records = make_records(columns)
        return read_evaluation(write_evaluation(tmp_path / label, records, label=label, **changed))

    return make


def cell(comparison: RunComparison, metric: str, run: int, subset: str = "all") -> Cell:
    row = next(row for row in comparison.rows_of(subset) if row.metric.name == metric)
    found = row.cells[run]
    assert found is not None
    return found


def test_differences_from_the_baseline_are_paired(make_run: MakeRun) -> None:
    first, second = column(), column(-0.03, noise=1, scale=0.02)
    comparison = compare_runs(
        [make_run("base", {"flow_jerk": first}), make_run("ours", {"flow_jerk": second})], ["base", "ours"]
    )
    ours = cell(comparison, "flow_jerk", 1)
    expected = paired_difference(first, second, CLUSTERS)
    assert ours.change is not None
    assert ours.change.change == expected
    assert ours.change.change.mean == pytest.approx((second - first).mean())
    assert ours.verdict == "better"
    # Without pairs, the differences between clips drown it.
    alone = unpaired_difference(first, second, CLUSTERS, CLUSTERS)
    assert alone.mean == pytest.approx(expected.mean)
    assert alone.sign == 0


def test_the_best_is_marked_and_those_that_tie_with_it(make_run: MakeRun) -> None:
    runs = [
        make_run("base", {"flow_jerk": column(), "mvcs": column(), "flow_magnitude": column()}),
        make_run("best", {"flow_jerk": column(-0.1), "mvcs": column(), "flow_magnitude": column(0.1)}),
        make_run(
            "near",
            {"flow_jerk": column(-0.098, noise=2), "mvcs": column(-0.1), "flow_magnitude": column()},
        ),
    ]
    comparison = compare_runs(runs, ["base", "best", "near"])
    assert [cell(comparison, "flow_jerk", i).rank for i in range(3)] == [None, "best", "tied"]
    assert [cell(comparison, "flow_jerk", i).verdict for i in range(3)] == [None, "better", "better"]
    assert [cell(comparison, "mvcs", i).rank for i in range(3)] == ["best", "best", None]
    assert [cell(comparison, "mvcs", i).verdict for i in range(3)] == [None, "no clear change", "worse"]
    assert [cell(comparison, "flow_magnitude", i).rank for i in range(3)] == [None] * 3
    assert [cell(comparison, "flow_magnitude", i).verdict for i in range(3)] == [
        None,
        "higher",
        "no clear change",
    ]


def test_another_baseline_turns_the_differences_round(make_run: MakeRun) -> None:
    runs = [make_run("a", {"flow_jerk": column()}), make_run("b", {"flow_jerk": column(-0.1)})]
    comparison = compare_runs(runs, ["a", "b"], baseline=1)
    assert cell(comparison, "flow_jerk", 1).change is None
    assert cell(comparison, "flow_jerk", 0).verdict == "worse"


def test_static_and_dynamic_scenes_stand_apart(make_run: MakeRun) -> None:
    is_dynamic = np.array([i // 2 % 2 == 1 for i in range(COUNT)])
    after = np.where(is_dynamic, column(-0.2), column(0.1))
    runs = [make_run("a", {"flow_jerk": column()}), make_run("b", {"flow_jerk": after})]
    comparison = compare_runs(runs, ["a", "b"])
    assert comparison.subsets == ("all", "static", "dynamic")
    assert cell(comparison, "flow_jerk", 1, "static").verdict == "worse"
    assert cell(comparison, "flow_jerk", 1, "dynamic").verdict == "better"
    assert cell(comparison, "flow_jerk", 1, "dynamic").mean.count == COUNT // 2


def test_a_line_is_over_the_clips_that_every_run_could_measure(make_run: MakeRun) -> None:
    first, second = column(), column()
    first[np.argmax(first)] = NAN
    second[np.argmin(second)] = NAN
    runs = [make_run("a", {"flow_jerk": first}), make_run("b", {"flow_jerk": second})]
    comparison = compare_runs(runs, ["a", "b"])
    means = [cell(comparison, "flow_jerk", run).mean for run in range(2)]
    assert means[0].count == means[1].count == COUNT - 2
    assert means[0].mean == means[1].mean
    # Nothing at all from one run must not take the others' figures away.
    empty = make_run("c", {"flow_jerk": np.full(COUNT, NAN)})
    three = compare_runs([*runs, empty], ["a", "b", "c"])
    assert cell(three, "flow_jerk", 0).mean.count == COUNT - 2
    assert cell(three, "flow_jerk", 2).mean.count == 0
    assert cell(three, "flow_jerk", 2).verdict is None


def test_only_clips_of_the_same_prompt_and_seed_enter(tmp_path: Path) -> None:
    def run(name: str, records: list[dict[str, object]]) -> EvaluatedClips:
        return read_evaluation(write_evaluation(tmp_path / name, records, label=name))

    full = make_records({"flow_jerk": column()})
    part = make_records({"flow_jerk": column(-0.1)})[4:]
    comparison = compare_runs([run("full", full), run("part", part)], ["full", "part"])
    assert cell(comparison, "flow_jerk", 0).mean.mean == pytest.approx(column()[4:].mean())
    assert (
        comparison.notes[0]
        == f"All figures are over the {COUNT - 4} clips that every run has. Left out: 4 of full."
    )


def test_runs_without_common_clips_are_compared_as_independent_samples(tmp_path: Path) -> None:
    records = make_records({"flow_jerk": column()})
    others = make_records({"flow_jerk": column(-0.4)})
    for record in others:
        record["prompt_id"] = f"other {record['prompt_id']}"
    runs = [
        read_evaluation(write_evaluation(tmp_path / "a", records)),
        read_evaluation(write_evaluation(tmp_path / "b", others)),
    ]
    comparison = compare_runs(runs, ["a", "b"])
    assert not comparison.pairing.is_paired
    assert "a and b share no clip of the same prompt and seed" in comparison.notes[0]
    found = cell(comparison, "flow_jerk", 1)
    assert found.verdict == "better"
    assert found.change is not None
    assert found.change.change.mean == pytest.approx(-0.4)
    with pytest.raises(
        ConfigError, match=r"cannot be paired: a and b share no clip .* use --pairing unpaired"
    ):
        compare_runs(runs, ["a", "b"], pairing="paired")


def test_what_makes_figures_differ_beside_the_videos_is_noted(make_run: MakeRun, tmp_path: Path) -> None:
    base = make_run("base", {"flow_jerk": column()})
    records = make_records({"flow_jerk": column()}, width=64)
    fail(records[0], "is truncated")
    settings = {"epipolar": {"step": 1}}
    folder = write_evaluation(tmp_path / "other", records, metric_settings=settings)
    comparison = compare_runs([base, read_evaluation(folder)], ["base", "other"])
    assert comparison.notes == (
        "1 of the 24 clips of other could not be measured and enter no figure.",
        "epipolar was measured with different settings in base and other (step): its figures do not compare.",
        "The videos have different sizes (base 32\u00d724; other 64\u00d724): figures in pixels do not "
        "compare.",
    )


def test_settings_are_compared_between_all_runs(make_run: MakeRun) -> None:
    def run(label: str, **settings: dict[str, object]) -> EvaluatedClips:
        return make_run(label, {"flow_jerk": column()}, metric_settings=settings)

    runs = [
        run("a"),
        run("b", geometry={"model": "vggt"}, epipolar={"step": 1}),
        run("c", geometry={"model": "any4d"}, epipolar={"step": 1}),
        run("d", geometry={"model": "any4d", "views": 9}),
        run("e", geometry={"model": "any4d"}),
    ]
    ending = "its figures do not compare."
    assert compare_runs(runs[:3], ["a", "b", "c"]).notes == (
        f"geometry was measured with different settings in b and c (model): {ending}",
    )
    assert compare_runs(runs, ["a", "b", "c", "d", "e"]).notes == (
        f"geometry was measured with different settings in b and each of c and e (model): {ending}",
        f"geometry was measured with different settings in b and d (model, views): {ending}",
        f"geometry was measured with different settings in each of c and e and d (views): {ending}",
    )


def test_noises_of_a_training_are_no_seeds_of_videos(make_run: MakeRun, tmp_path: Path) -> None:
    rows = make_records({"flow_jerk": column()})
    columns = {name: [row[name] for row in rows] for name in ("prompt_id", "kind", "prompt")}
    columns |= {"sample": [row["seed"] for row in rows], "flow_jerk": column(-0.1).tolist()}
    trainings = []
    for name in ("one", "two"):
        (tmp_path / name / "evaluations").mkdir(parents=True)
        EvaluationRecords(columns).save(tmp_path / name / "evaluations" / "step_000010.json")
        trainings.append(read_evaluation(tmp_path / name))
    videos = make_run("videos", {"flow_jerk": column()})
    assert set(videos.by_key()) == set(trainings[0].by_key())
    mixed = compare_runs([*trainings, videos], ["one", "two", "videos"])
    assert not mixed.pairing.is_paired
    reason = "the clips of one and two are of the noises of a training, those of videos are video files with"
    assert f"{reason} seeds." in mixed.notes[0]
    with pytest.raises(ConfigError, match=r"cannot be paired: the clips of one are .* --pairing unpaired"):
        compare_runs([trainings[0], videos], ["one", "videos"], pairing="paired")
    assert compare_runs(trainings, ["one", "two"]).pairing.is_paired


def test_metrics_that_a_run_lacks_are_no_zeros(make_run: MakeRun) -> None:
    runs = [make_run("a", {"flow_jerk": column(), "mvcs": column()}), make_run("b", {"flow_jerk": column()})]
    comparison = compare_runs(runs, ["a", "b"])
    text = comparison_markdown(comparison)
    (line,) = [line for line in text.split("## Static")[0].splitlines() if "MVCS" in line]
    assert line.endswith("| not measured |")
    rows = comparison_json(comparison, "x")["metrics"]
    assert next(row for row in rows if row["metric"] == "mvcs")["runs"]["b"] is None


def test_markdown_marks_best_ties_and_significance_and_keeps_its_columns(make_run: MakeRun) -> None:
    runs = [
        make_run("base", {"flow_jerk": column()}),
        make_run("a", {"flow_jerk": column(-0.1)}),
        make_run("b", {"flow_jerk": column(-0.098, noise=2)}),
    ]
    text = comparison_markdown(compare_runs(runs, ["base", "a|a", "b"]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}
    first = lines[2].replace("\\|", "").split("|")
    assert first[1] == " \u2193 Flow jerk "
    assert "**" not in first[2]
    assert first[3].startswith(" **")
    assert first[3].endswith("n=24 \u25b2 ")
    assert first[4].endswith("n=24 \u25b2\u2248 ")
    assert "base (baseline)" in lines[0]


def test_json_holds_every_figure_and_no_nan(make_run: MakeRun) -> None:
    lonely = np.full(COUNT, NAN)
    lonely[0] = 0.5
    runs = [
        make_run("a", {"flow_jerk": column(), "mvcs": lonely}),
        make_run("b", {"flow_jerk": column(-0.1), "mvcs": lonely}),
    ]
    written = comparison_json(
        compare_runs(runs, ["a", "b"]), "vggrpo compare a b", published_figures("wan2.2-5b")
    )
    read = json.loads(json.dumps(written, allow_nan=False))
    assert read["command"] == "vggrpo compare a b"
    assert (read["baseline"], read["paired"]) == ("a", True)
    row = next(row for row in read["metrics"] if (row["metric"], row["subset"]) == ("flow_jerk", "all"))
    assert row["runs"]["a"]["difference"] is None
    assert row["runs"]["b"]["difference"]["mean"] == pytest.approx(-0.1)
    assert (row["runs"]["b"]["verdict"], row["runs"]["b"]["rank"]) == ("better", "best")
    single = next(row for row in read["metrics"] if (row["metric"], row["subset"]) == ("mvcs", "all"))
    assert single["runs"]["b"]["mean"] == {"mean": 0.5, "low": None, "high": None, "n": 1}
    assert (single["runs"]["b"]["verdict"], single["runs"]["b"]["rank"]) == (None, None)


def test_published_figures_stand_beside_the_same_metric_only(make_run: MakeRun) -> None:
    published = published_figures("wan2.2-5b")
    columns = {"vbench_imaging_quality": column(), "epipolar_error": column()}
    comparison = compare_runs([make_run("a", columns), make_run("b", columns)], ["a", "b"])
    text = comparison_markdown(comparison, published)
    table = text.split("## Static")[0].splitlines()
    assert "published: base model | published: Epipolar-DPO | published: VideoGPA | published: VGGRPO" in text
    (imaging,) = [line for line in table if "maging quality" in line]
    assert imaging.endswith("| 0.6733 | 0.6353 | 0.6338 | 0.6861 |")
    (epipolar,) = [line for line in table if "Epipolar error" in line]
    assert epipolar.endswith("|  |  |  |  |")
    assert "published:" not in text.split("## Static")[1]


def test_every_published_figure_has_a_source_and_doubtful_ones_stand_alone() -> None:
    figures = (*published_figures("wan2.2-5b"), *published_figures("wan2.1-1.3b"))
    assert all(figure.source for figure in figures)
    doubtful = [figure for figure in figures if "win rate in per cent" in figure.doubt]
    assert [figure.value for figure in doubtful if "epipolar" in figure.measure] == [
        45.26,
        44.80,
        54.21,
        53.68,
        59.47,
    ]
    assert all(figure.metric is None for figure in doubtful)
    with pytest.raises(ValueError, match=r"published figures of wan2\.2-5b, wan2\.1-1\.3b"):
        published_figures("micro")


def test_published_metrics_are_in_the_catalogue() -> None:
    for setting in ("wan2.2-5b", "wan2.1-1.3b"):
        for figure in published_figures(setting):
            assert figure.metric is None or describe(figure.metric).name == figure.metric


@pytest.fixture
def page(make_run: MakeRun) -> str:
    columns = {"flow_jerk": column(), "vbench_imaging_quality": column()}
    labels = ["base", "a <b>bold</b> name that is long", "b"]
    runs = [make_run(f"run{i}", {n: c - 0.05 * i for n, c in columns.items()}) for i in range(3)]
    comparison = compare_runs(runs, labels)
    return comparison_page(
        comparison, "vggrpo compare 'a b'", "2026-01-02 03:04 UTC", published_figures("wan2.2-5b")
    )


def test_the_page_is_whole_and_shows_the_comparison(page: str) -> None:
    assert_self_contained(page)
    assert "<b>bold</b>" not in page
    text = " ".join(Tags(page).text)
    assert "All clips" in text
    assert "Published: VGGRPO" in text
    assert "vggrpo compare 'a b'" in text
    assert page.count('class="chip verdict-better"') == 2 * 3
    assert page.count('class="chip verdict-worse"') == 2 * 3
    assert page.count('class="chart"') == 2


def test_the_page_shows_the_same_prompts_by_every_run_beside_each_other(tmp_path: Path) -> None:
    runs = []
    for number, brightness in enumerate((40, 120, 200)):
        write_clip(tmp_path / f"{number}.mp4", brightness)
        # As of a training: neither size nor length are in the records.
        records = make_records(
            {"flow_jerk": column()}, tmp_path / f"{number}.mp4", width=0, frames=0, fps=0.0
        )
        if number == 1:
            fail(records[0], "is truncated")
        runs.append(read_evaluation(write_evaluation(tmp_path / f"run{number}", records)))
    page = comparison_page(compare_runs(runs, ["a", "b", "c"]), "x", "today")
    assert_self_contained(page)
    sources = Tags(page).attribute("video", "src")
    assert len(sources) == 4
    (tmp_path / "row.mp4").write_bytes(base64.b64decode(str(sources[0]).split(",", 1)[1]))
    frames, fps = read_video(tmp_path / "row.mp4")
    assert (len(frames), fps) == (FRAMES, FPS)
    for side, brightness in zip(np.split(frames, 3, axis=2), (40, 120, 200), strict=True):
        np.testing.assert_allclose(side.mean((1, 2, 3)), brightness + np.arange(FRAMES), atol=2.5)


@needs_chromium
def test_the_page_fits_wide_and_narrow_windows(page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page, "utf-8")
    with headless_chromium.Page(tmp_path / "profile") as browser:
        browser.open(tmp_path / "page.html")
        for width in (1366, 400):
            browser.resize(width, 800)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.console == []
        assert [url for url in browser.requests if not url.startswith(("data:", "file:"))] == []


def test_independent_samples_have_the_interval_of_the_normal_approximation() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(1.0, 2.0, 300), rng.normal(1.5, 1.0, 200)
    found = unpaired_difference(np.append(first, NAN), second)
    half = 1.96 * np.sqrt(first.var() / 300 + second.var() / 200)
    assert found.mean == pytest.approx(second.mean() - first.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.05 * half)
    assert (found.count, found.missing) == (200, 1)
    assert np.isnan(unpaired_difference([1.0], [2.0, 3.0]).low)
    assert unpaired_difference([1.0], [2.0, 3.0]).mean == 1.5
    assert np.isnan(unpaired_difference([NAN], [2.0]).mean)
