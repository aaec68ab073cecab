import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from page_tags import Tags

import headless_chromium
from vggrpo.evaluation import EvaluationRecords, compare
from vggrpo.evaluation.report import (
    SECTIONS,
    Curve,
    LayerSearchData,
    ReportData,
    VideoPair,
    fidelity_figures,
    render_report,
    video_pair,
    write_report,
)
from vggrpo.evaluation.report.charts import camera_path_chart
from vggrpo.evaluation.report.figures import figure_table, glance
from vggrpo.geometry import SceneGeometry
from vggrpo.io import read_video

MakeRecords = Callable[..., EvaluationRecords]

needs_chromium = pytest.mark.skipif(headless_chromium.EXECUTABLE is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def page(report_data: ReportData) -> str:
    return render_report(report_data)


def test_page_is_well_formed_and_has_every_section(page: str) -> None:
    tags = Tags(page)
    assert tags.open == []
    ids = [attributes["id"] for tag, attributes in tags.found if tag == "section"]
    assert ids == [*SECTIONS, "settings"]
    targets = {attributes["href"][1:] for tag, attributes in tags.found if tag == "a"}
    assert targets == {*ids, "top"}


def test_page_refers_to_nothing_outside_itself(page: str) -> None:
    assert "http://" not in page
    assert "https://" not in page
    for tag, attributes in Tags(page).found:
        assert tag not in {"link", "iframe", "object"}
        source = attributes.get("src") or "data:"
        assert source.startswith("data:")
        if tag == "script":
            assert "src" not in attributes
    assert "url(" not in page
    assert "@import" not in page


def test_captions_settings_and_titles_are_escaped(page: str) -> None:
    assert "<script>alert(1)" not in page
    assert "a &lt;b&gt;red&lt;/b&gt; box &amp; &quot;two&quot; &lt;script&gt;" in page
    assert "<h1>Test run &lt;1&gt;</h1>" in page
    assert "&lt;tag&gt;" in page
    assert "&lt;cpu&gt;" in page
    assert "vggrpo demo --name &quot;a &amp; b&quot;" in page


def test_settings_can_be_read_back(page: str, report_data: ReportData) -> None:
    import html

    (text,) = re.findall(r'<pre id="yaml">(.*?)</pre>', page, re.DOTALL)
    assert yaml.safe_load(html.unescape(text)) == report_data.settings


def test_embedded_videos_hold_both_clips_enlarged(page: str, report_data: ReportData, tmp_path: Path) -> None:
    import base64

    sources = [attributes["src"] for tag, attributes in Tags(page).found if tag == "video"]
    assert len(sources) == len(report_data.videos)
    (tmp_path / "clip.mp4").write_bytes(base64.b64decode(sources[0].removeprefix("data:video/mp4;base64,")))
    frames, fps = read_video(tmp_path / "clip.mp4")
    assert (frames.shape, fps) == ((17, 288, 768, 3), 8.0)
    small = frames.reshape(17, 24, 12, 64, 12, 3).mean((2, 4))
    pair = report_data.videos[0]
    assert np.abs(small[:, :, :32] - pair.before).mean() < 6
    assert np.abs(small[:, :, 32:] - pair.after).mean() < 6


def test_a_section_without_data_needs_a_reason_and_shows_it(report_data: ReportData) -> None:
    without = dataclasses.replace(report_data, timing=None, videos=())
    with pytest.raises(ValueError, match="no data for videos, timing"):
        render_report(without)
    reasons = {"timing": "not measured on <this> machine", "videos": "none kept"}
    page = render_report(dataclasses.replace(without, left_out=reasons))
    assert 'id="timing"' not in page
    assert "not measured on &lt;this&gt; machine" in page
    assert "Left out of this report" in page
    with pytest.raises(ValueError, match="left_out names timings"):
        render_report(dataclasses.replace(report_data, left_out={"timings": "?"}))


def text_of(data: ReportData) -> str:
    return " ".join(
        Tags(render_report(dataclasses.replace(data, videos=(), left_out={"videos": "test"}))).text
    )


@pytest.mark.parametrize(
    ("shifts", "headline"),
    [
        ({"teacher__motion": 0.1, "flow_jerk": -0.1}, "All 2 independent checks improved."),
        ({"teacher__motion": -0.1, "flow_jerk": 0.1}, "All 2 independent checks got worse."),
        ({}, "None of the independent checks changed clearly, in either direction."),
        ({"teacher__motion": 0.1, "flow_jerk": 0.1}, "Of 2 independent checks, 1 improved and 1 got worse."),
        ({"flow_jerk": -0.1}, "Of 2 independent checks, 1 improved and 1 showed no clear change."),
    ],
)
def test_the_headline_follows_the_signs(
    report_data: ReportData, make_records: MakeRecords, shifts: dict[str, float], headline: str
) -> None:
    rows = compare(make_records(), make_records(**shifts))
    text = text_of(dataclasses.replace(report_data, comparisons=rows))
    assert headline in text
    assert ("improved" in text) == ("improved" in headline)


@pytest.mark.parametrize(
    ("shifts", "warning"),
    [
        ({"lgm__motion": 0.1}, "shows no clear change: the policy may exploit"),
        ({"lgm__motion": 0.1, "teacher__motion": -0.1}, "got worse: the policy may exploit"),
        ({"flow_jerk": -0.1, "flow_drift": -0.5}, "part of the steadiness may come from moving less"),
        ({"saturation": -0.1}, "The picture lost saturation"),
    ],
)
def test_signs_of_reward_hacking_are_pointed_out(
    report_data: ReportData, make_records: MakeRecords, shifts: dict[str, float], warning: str
) -> None:
    suspicious = compare(make_records(), make_records(**shifts))
    assert warning in text_of(dataclasses.replace(report_data, comparisons=suspicious))
    clean = compare(make_records(), make_records(lgm__motion=0.1, teacher__motion=0.1))
    assert warning not in text_of(dataclasses.replace(report_data, comparisons=clean))


def test_shake_that_is_gone_is_not_taken_for_standing_still(
    report_data: ReportData, make_records: MakeRecords
) -> None:
    before, after = make_records(), make_records(flow_jerk=-0.1, flow_magnitude=-0.5)
    for records, length in ((before, 3.0), (after, 2.0)):
        records.columns["camera_path"] = [length + 0.1 * (i % 3) for i in range(len(records))]
        records.columns["camera_extent"] = [2.0 + 0.1 * (i % 3) for i in range(len(records))]
    warning = "part of the steadiness may come from moving less"
    assert warning not in text_of(dataclasses.replace(report_data, comparisons=compare(before, after)))
    after.columns["camera_extent"] = [1.0 + 0.1 * (i % 3) for i in range(len(after))]
    assert warning in text_of(dataclasses.replace(report_data, comparisons=compare(before, after)))


def test_amounts_of_motion_that_shake_does_not_change_stand_at_the_top(make_records: MakeRecords) -> None:
    before, after = make_records(), make_records(flow_drift=-0.5)
    for records in (before, after):
        records.columns["camera_extent"] = [2.0 + 0.1 * (i % 3) for i in range(len(records))]
    text = " ".join(Tags(glance(compare(before, after))).text)
    assert "Motion amount without shake (flow)" in text
    assert "Camera extent" in text
    assert "Motion amount (flow)" not in text


def test_every_watched_metric_stands_under_its_heading(make_records: MakeRecords) -> None:
    records = make_records()
    records.columns["object_presence"] = [0.2 + 0.01 * (i % 3) for i in range(len(records))]
    text = Tags(figure_table(compare(records, records))).text
    independent, pixels, drift, objects = (
        next(place for place, words in enumerate(text) if start in words)
        for start in ("Independent: motion", "To watch: pixels", "Motion amount without", "Object presence")
    )
    assert independent < drift < pixels < objects
    assert "Other" not in text


def test_a_policy_that_leaves_the_domain_of_the_lgm_is_pointed_out(
    report_data: ReportData, make_records: MakeRecords
) -> None:
    before, after = make_records(), make_records()
    before.columns["fidelity/rotation_deg"] = [2.0 + 0.1 * (i % 3) for i in range(len(before))]
    after.columns["fidelity/rotation_deg"] = [3.0 + 0.1 * (i % 3) for i in range(len(after))]
    warning = "agrees less with its teacher than before (LGM rotation error +1.00 deg [+1.00, +1.00])"
    assert warning in text_of(dataclasses.replace(report_data, comparisons=compare(before, after)))
    assert warning not in text_of(dataclasses.replace(report_data, comparisons=compare(after, before)))


def test_missing_measurements_are_counted_in_words(
    report_data: ReportData, make_records: MakeRecords
) -> None:
    before = make_records()
    before.columns["teacher/motion"][:3] = [float("nan")] * 3
    text = text_of(dataclasses.replace(report_data, comparisons=compare(before, make_records())))
    assert "Motion reward (teacher) on 3 of 24 pairs" in text


def test_a_slower_latent_path_is_said_to_be_slower(report_data: ReportData) -> None:
    timing = report_data.timing
    assert timing is not None
    assert "3.1 times faster" in text_of(report_data)
    swapped = dataclasses.replace(timing, latent=timing.pixel, pixel=timing.latent)
    assert "3.1 times slower" in text_of(dataclasses.replace(report_data, timing=swapped))


def test_curves_come_from_the_records_of_a_run() -> None:
    records = [{"step": 1, "a": 0.5, "b": 1.0}, {"step": 2, "b": None}, {"step": 3, "b": 2.0}]
    curve = Curve.from_records(records, "b", "Panel", "b")
    assert curve.steps == [1.0, 2.0, 3.0]
    assert np.isnan(curve.values[1])
    assert Curve.from_records(records, "a", "Panel", "a").steps == [1.0]
    with pytest.raises(ValueError, match="no record has the metric 'c'"):
        Curve.from_records(records, "c", "Panel", "c")


def test_layer_search_is_taken_from_its_json() -> None:
    row = {"held_out_error": 0.3, "downstream_error": 0.5, "rotation_deg": 9.0}
    search = {"recommended": "E1", "num_fit_clips": 8, "num_held_out_clips": 2}
    search["candidates"] = [row | {"point": "E0"}, row | {"point": "E1"}]
    data = LayerSearchData.from_search(search)
    assert (data.names, data.chosen) == (["E0", "E1"], "E1")
    assert LayerSearchData.from_search(search, chosen="E0").chosen == "E0"
    assert len(data.errors) == 3
    search["candidates"][1] |= {"downstream_error": None, "rotation_deg": None}
    assert list(LayerSearchData.from_search(search).errors.values()) == [[0.3, 0.3]]


def test_a_video_pair_carries_the_figures_of_its_sample(make_records: MakeRecords) -> None:
    import torch

    before, after = make_records(), make_records(flow_jerk=-0.1)
    clip = torch.rand(5, 24, 32, 3, generator=torch.Generator().manual_seed(0))
    pair = video_pair(before, after, ("p3", 1), clip, clip, ["flow_jerk"])
    assert pair.prompt == "prompt 3"
    assert pair.figures == [("Flow jerk", before.values("flow_jerk")[7], after.values("flow_jerk")[7], 3)]
    assert np.abs(pair.before / 255 - clip.numpy()).max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match=r"hold no sample \('p99', 0\)"):
        video_pair(before, after, ("p99", 0), clip, clip)
    with pytest.raises(ValueError, match="expected uint8"):
        VideoPair("x", "static", clip.numpy(), clip.numpy())
    with pytest.raises(ValueError, match="must be equal"):
        VideoPair("x", "static", pair.before, pair.after[:3])


def test_a_pair_with_scenes_carries_camera_paths_in_median_depths(make_records: MakeRecords) -> None:
    records, clip = make_records(), torch.zeros(9, 16, 24, 3)
    camera = torch.eye(4).repeat(1, 3, 1, 1)
    camera[0, :, 0, 3] = torch.tensor([1.0, 2.0, 4.0])
    intrinsics, depth = torch.eye(3).expand(1, 3, 3, 3), torch.full((1, 3, 4, 6), 2.0)
    scene = SceneGeometry(camera, intrinsics, depth, torch.zeros(1, 3, 4, 6, 3))
    pair = video_pair(records, records, ("p0", 0), clip, clip, scenes=(scene, scene))
    assert pair.paths is not None
    np.testing.assert_allclose(pair.paths[0][:, 0], [0.0, 0.5, 1.5])
    depth = torch.zeros(1, 3, 4, 6)
    depth[..., 0] = 2.0  # most pixels see no surface
    pair = video_pair(
        *(records, records, ("p0", 0), clip, clip),
        scenes=(scene, SceneGeometry(camera, intrinsics, depth, torch.zeros(1, 3, 4, 6, 3))),
    )
    assert pair.paths is not None
    np.testing.assert_allclose(pair.paths[1], pair.paths[0])


@pytest.mark.parametrize("flaw", ["nan", "inf", "no surface"])
def test_geometry_that_is_not_finite_has_no_path_and_ends_no_report(
    make_records: MakeRecords, report_data: ReportData, flaw: str
) -> None:
    records, clip = make_records(), torch.zeros(9, 16, 24, 3)
    camera = torch.eye(4).repeat(1, 3, 1, 1)
    intrinsics, depth = torch.eye(3).expand(1, 3, 3, 3), torch.full((1, 3, 4, 6), 2.0)
    sound = SceneGeometry(camera, intrinsics, depth, torch.zeros(1, 3, 4, 6, 3))
    broken = camera.clone()
    broken[0, 1, 0, 3] = 1.0 if flaw == "no surface" else float(flaw)
    bad = SceneGeometry(broken, intrinsics, 0 * depth if flaw == "no surface" else depth, sound.world_points)
    pair = video_pair(records, records, ("p0", 0), clip, clip, scenes=(sound, bad))
    assert pair.paths is None
    page = render_report(dataclasses.replace(report_data, videos=[pair]))
    assert "The geometry model found no finite camera path in the video after." in page


def test_paths_are_drawn_at_one_scale_whatever_their_length() -> None:
    long = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0], [2.0, 0.0, 0.0]])
    chart = camera_path_chart(0.5 * long, long)
    x, y = (np.array([float(v) for v in re.findall(rf'{name}="([\d.]+)" ', chart)]) for name in ("cx", "cy"))
    before, after = slice(1, 4), slice(4, 7)
    np.testing.assert_allclose(np.diff(x[after]), 2 * np.diff(x[before]), atol=0.1)
    np.testing.assert_allclose(np.diff(x[after])[0], -np.diff(y[after])[0], atol=0.1)
    assert (x > 0).all()
    assert (y > 0).all()
    still = np.zeros((3, 3))
    assert "NaN" not in camera_path_chart(still, still)


def test_raised_alarms_are_told_and_silence_too(report_data: ReportData) -> None:
    page = render_report(report_data)
    assert "1 alarm in 2 held-out evaluations" in page
    assert "The camera &lt;moves&gt; 40 % less." in page
    quiet = render_report(dataclasses.replace(report_data, alarms=()))
    assert "No alarm was raised in 2 held-out evaluations" in quiet


def test_the_gate_shows_its_figures(page: str, report_data: ReportData) -> None:
    assert report_data.gate is not None
    share = report_data.gate.generated.rewards["camera_motion"].share
    assert f"{share.mean:.2f}" in page[page.index('id="gate"') :]


def test_fidelity_rows_are_the_lgm_errors_of_the_records(make_records: MakeRecords) -> None:
    records = make_records()
    assert fidelity_figures(records) == []
    records.columns["fidelity/rotation_deg"] = [3.0] * len(records)
    (figure,) = fidelity_figures(records)
    assert (figure.label, figure.value, figure.unit) == ("LGM rotation error", 3.0, "deg")


@pytest.fixture(scope="module")
def browser(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[headless_chromium.Page]:
    """The report in a browser, its videos loaded."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "report.html").write_text(page, "utf-8")
    with headless_chromium.Page(folder / "profile") as browser:
        browser.open(folder / "report.html")
        browser.wait_for(f"{VIDEOS}.every(v => v.readyState >= 3)")
        yield browser


VIDEOS = "[...document.querySelectorAll('video')]"
TIMES = f"{VIDEOS}.map(v => v.currentTime)"
FRAME = 1 / 8


def press_play(browser: headless_chromium.Page, playing: bool) -> None:
    """Presses the button unless the videos play (or rest) already, and waits until all do."""
    word = "Pause" if playing else "Play"
    if word not in browser.evaluate("document.getElementById('play').textContent"):
        browser.evaluate("document.getElementById('play').click()")
    browser.wait_for(f"{VIDEOS}.every(v => v.paused != {str(playing).lower()} && !v.seeking)")
    browser.wait_for(f"document.getElementById('play').textContent.includes('{word}')")


@needs_chromium
def test_the_scenes_play_in_the_page(browser: headless_chromium.Page) -> None:
    scene = "document.querySelector('vggrpo-scene')"
    browser.evaluate(f"{scene}.scrollIntoView()")
    browser.wait_for(f"{scene}.dataset.state === 'ready'")
    assert browser.evaluate(f"{scene}.scenes.map(s => s.views)") == [5, 5]
    assert not browser.evaluate(f"{scene}.playing"), "scenes in a report wait to be played"
    browser.evaluate(f"{scene}.play.click()")
    browser.wait_for(f"{scene}.place > 0")
    browser.evaluate(f"{scene}.play.click()")
    prompt = browser.evaluate(f"{scene}.shadowRoot.querySelector('.foot p').textContent")
    assert prompt.startswith("a <b>red</b> box")
    browser.evaluate("window.scrollTo(0, 0)")


@needs_chromium
def test_the_browser_plays_all_videos_in_step_and_loads_nothing(browser: headless_chromium.Page) -> None:
    assert browser.evaluate(f"{VIDEOS}.map(v => v.videoWidth)") == [768] * 3
    press_play(browser, True)
    samples = []
    for _ in range(40):
        samples.append(browser.evaluate(TIMES))
        time.sleep(0.1)
    times = np.array(samples)
    assert (np.diff(times[:, 0]) < 0).any(), "the clips never started again"
    assert np.median(np.ptp(times, axis=1)) < FRAME
    assert [url for url in browser.requests if not url.startswith(("data:", "file:"))] == []
    assert browser.console == []


@needs_chromium
def test_one_button_stops_all_videos_on_the_same_frame_and_starts_them_again(
    browser: headless_chromium.Page,
) -> None:
    press_play(browser, True)
    press_play(browser, False)
    stopped = browser.evaluate(TIMES)
    assert np.ptp(stopped) < 1e-3
    time.sleep(0.3)
    assert browser.evaluate(TIMES) == stopped
    press_play(browser, True)
    browser.wait_for(f"Math.abs({TIMES}[0] - {stopped[0]}) > {FRAME}")


@needs_chromium
def test_the_timeline_moves_all_videos_and_playheads_to_its_frame(browser: headless_chromium.Page) -> None:
    browser.evaluate(
        "(line => { line.value = 12; line.dispatchEvent(new Event('input')); })"
        "(document.getElementById('timeline'))"
    )
    browser.wait_for(f"{VIDEOS}.every(v => v.paused && !v.seeking)")
    browser.wait_for("document.getElementById('clock').textContent.startsWith('frame 13 of 17')")
    np.testing.assert_allclose(browser.evaluate(TIMES), [12.5 * FRAME] * 3, atol=1e-3)
    share = browser.evaluate(
        "[...document.querySelectorAll('.playhead')].map(l => (l.getAttribute('x1') - l.dataset.from)"
        " / (l.dataset.to - l.dataset.from))"
    )
    np.testing.assert_allclose(share, [12 / 16] * 3, atol=1e-6)


@needs_chromium
@pytest.mark.parametrize("width", [1366, 400])
def test_nothing_sticks_out_of_the_window(browser: headless_chromium.Page, width: int) -> None:
    browser.resize(width, 800)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_the_report_is_written_whole(report_data: ReportData, page: str, tmp_path: Path) -> None:
    assert write_report(report_data, tmp_path / "folder" / "report.html").read_text("utf-8") == page
