"""Exported pages in a headless browser: what is drawn, what the controls do, and that nothing is loaded."""

import base64
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from exact_scenes import HEIGHT, WIDTH, exact_scene

import headless_chromium
from vggrpo.geometry import unproject
from vggrpo.viewer import Scene4D, scene_fragment, scene_script, write_scene_page
from vggrpo.viewer.html_payload import scene_payload
from vggrpo.viewer.prepared import prepare_scene

pytestmark = pytest.mark.skipif(headless_chromium.EXECUTABLE is None, reason="no Chromium is installed")

ELEMENT = "document.querySelector('vggrpo-scene')"
READY = f"{ELEMENT}?.dataset.state === 'ready'"
Picture = np.ndarray[Any, np.dtype[np.uint8]]


class Viewer:
    """A page with a scene, and what a person does with it."""

    def __init__(self, page: headless_chromium.Page) -> None:
        self.page = page

    def get(self, expression: str) -> Any:
        """The value of an expression in which `v` is the element."""
        return self.page.evaluate(f"(() => {{ const v = {ELEMENT}; return {expression}; }})()")

    def press(self, text: str) -> None:
        """Presses the button with this text or label, and waits until the picture is drawn."""
        buttons = "[...v.shadowRoot.querySelectorAll('button')]"
        self.get(f"{buttons}.find(b => (b.ariaLabel || b.textContent) === '{text}').click()")
        self.settle()

    def set(self, label: str, value: float) -> None:
        """Moves the slider with this label."""
        self.get(
            f"(i => {{ i.value = {value}; i.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
            f"(v.shadowRoot.querySelector('input[aria-label=\"{label}\"]'))"
        )
        self.settle()

    def settle(self) -> None:
        self.page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
        )

    def picture(self) -> Picture:
        """The canvas, drawn anew, RGB."""
        # In one task, since a canvas is emptied after it has been shown.
        shown = self.get(
            "(v.renderer.draw(v.orbit, v.currentViews(), v.options), v.canvas.toDataURL('image/png'))"
        )
        data = np.frombuffer(base64.b64decode(shown.partition(",")[2]), np.uint8)
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def before_and_after() -> list[Scene4D]:
    """The exact scene, and one whose second camera has been moved with its points."""
    scene = exact_scene()
    geometry = scene.geometry
    cameras = geometry.camera_to_world.clone()
    cameras[0, 1, :3, 3] += 0.15
    points = unproject(geometry.depth_z, geometry.intrinsics, cameras)
    broken = replace(geometry, camera_to_world=cameras, world_points=points)
    return [replace(scene, geometry=broken, label="Before"), replace(scene, label="After", rewards={})]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    folder = tmp_path_factory.mktemp("viewer")
    write_scene_page(folder / "scene.html", before_and_after())
    with headless_chromium.Page(folder / "profile", 900, 560) as page:
        page.open(folder / "scene.html", READY)
        viewer = Viewer(page)
        viewer.press("Pause")
        yield viewer


@pytest.fixture(autouse=True)
def _as_at_first(viewer: Viewer) -> None:
    viewer.get(
        "(Object.assign(v.options, {colour: 'image', shown: 'all', size: 1, confidence: 0, cameras: true,"
        " flow: true, allViews: false, seeThrough: true, through: false}),"
        " v.orbit.reset(), v.seek(0), v.changed())"
    )
    viewer.settle()


def drawn_share(picture: Picture) -> float:
    """Share of pixels that are clearly no background, which is dark and grey."""
    return float((picture.max(axis=-1) > 60).mean())


def difference(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def test_the_browser_unpacks_what_python_packed(viewer: Viewer) -> None:
    prepared = prepare_scene(before_and_after()[0])
    payload = scene_payload(prepared)
    shape = prepared.points.shape
    steps = np.array(viewer.get("Array.from(v.scenes[0].position)")).reshape(3, *shape[:-1])
    low, high = np.array(payload["low"]), np.array(payload["high"])
    found = low + np.moveaxis(steps, 0, -1) / 65535 * (high - low)
    assert np.abs(found - prepared.points).max() < 1e-4
    colours = np.array(viewer.get("Array.from(v.scenes[0].colour)")).reshape(3, *shape[:-1])
    assert (np.moveaxis(colours, 0, -1) == prepared.colours).all()
    cameras = np.array(viewer.get("Array.from(v.scenes[0].camera)")).reshape(-1, 3, 4)
    np.testing.assert_allclose(cameras, prepared.camera_to_world[:, :3], atol=1e-6)


def test_both_panes_show_points_in_colour(viewer: Viewer) -> None:
    picture = viewer.picture()
    half = picture.shape[1] // 2
    for pane in (picture[:, :half], picture[:, half:]):
        assert 0.08 < drawn_share(pane) < 0.9
        assert len(np.unique(pane.reshape(-1, 3) // 32, axis=0)) > 12
        corners = np.concatenate([pane[-30:, :30], pane[:30, -30:]])
        assert corners.max() < 60, "the background is dark"


def test_the_page_shows_the_canvas_and_its_labels(viewer: Viewer, tmp_path: Path) -> None:
    viewer.page.screenshot(tmp_path / "page.png", whole=False)
    page = cv2.imread(str(tmp_path / "page.png"))
    canvas = viewer.picture()
    assert 0.08 < drawn_share(page[120 : canvas.shape[0]]) < 0.9
    assert page[:60, :120].max() > 200, "the label"


def test_looking_through_the_camera_shows_its_picture(viewer: Viewer) -> None:
    for label in ("Cameras", "Flow", "Camera"):
        viewer.press(label)
    viewer.set("View", 2)
    picture = viewer.picture()
    half = picture.shape[1] // 2
    pane = picture[:, half:]
    focal = pane.shape[1] / WIDTH / 1.06
    width, height = round(focal * WIDTH), round(focal * HEIGHT)
    top, left = (pane.shape[0] - height) // 2, (pane.shape[1] - width) // 2
    seen = cv2.resize(
        pane[top : top + height, left : left + width], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA
    )
    colours = before_and_after()[1].colours[2].numpy()
    inner = np.s_[3:-3, 3:-3]
    difference_of_means = np.abs(seen[inner].astype(int) - colours[inner]).mean(axis=-1)
    assert np.median(difference_of_means) < 12
    assert np.corrcoef(seen[inner].reshape(-1), colours[inner].reshape(-1))[0, 1] > 0.9


@pytest.mark.parametrize(
    "press",
    [
        "Error",
        "Motion",
        "Confidence",
        "Static",
        "Moving",
        "Cameras",
        "Flow",
        "See through",
        "All views",
        "Camera",
    ],
)
def test_every_button_changes_the_picture(viewer: Viewer, press: str) -> None:
    if press == "See through":
        viewer.get("(v.orbit.yaw = 2.6)")
    before = viewer.picture()
    pressed = (
        f"[...v.shadowRoot.querySelectorAll('button')].find(b => b.textContent === '{press}').ariaPressed"
    )
    state = viewer.get(pressed)
    viewer.press(press)
    assert viewer.get(pressed) != state
    assert difference(before, viewer.picture()) > 0.02


def test_the_heat_map_is_hot_where_a_camera_is_wrong(viewer: Viewer) -> None:
    for label in ("Cameras", "Flow", "Error"):
        viewer.press(label)
    viewer.set("View", 1)
    picture = viewer.picture()
    half = picture.shape[1] // 2
    red, _, blue = (picture.astype(int)[..., channel] for channel in range(3))
    hot, cold = (red > blue + 60), (blue > red + 60)
    assert hot[:, :half].mean() > 0.02
    assert hot[:, half:].mean() < 0.004
    assert cold[:, half:].mean() > 0.05
    assert "Reprojection error" in viewer.get("v.legend.textContent")


def test_static_and_moving_points_make_up_all(viewer: Viewer) -> None:
    for label in ("Cameras", "Flow"):
        viewer.press(label)
    shares = {}
    for label in ("All", "Static", "Moving"):
        viewer.press(label)
        shares[label] = drawn_share(viewer.picture())
    assert 0 < shares["Moving"] < shares["Static"] < shares["All"] * 1.02


def test_sliders_hide_and_enlarge_points(viewer: Viewer) -> None:
    for label in ("Cameras", "Flow"):
        viewer.press(label)
    everything = drawn_share(viewer.picture())
    viewer.set("Confidence", 0.8)
    assert drawn_share(viewer.picture()) < 0.5 * everything
    viewer.set("Confidence", 0)
    viewer.set("Size", 0.4)
    assert drawn_share(viewer.picture()) < 0.9 * everything


def test_rewards_times_and_errors_are_shown(viewer: Viewer) -> None:
    text = viewer.get("v.shadowRoot.querySelector('.labels').innerText")
    before, after = text.split("After")
    assert "0.750" in before
    assert "Reprojection\t–" in before, "a reward that could not be computed is no number"
    assert "1.000" in after or "0.99" in after
    viewer.set("View", 1)
    assert viewer.get("v.clock.textContent") == "0.50 s · 2/3"
    errors = viewer.get("v.errors.map(e => parseFloat(e.textContent))")
    assert errors[0] > 3 * errors[1]


def test_playing_goes_on_by_itself_and_comes_round(viewer: Viewer) -> None:
    viewer.press("Play")
    seen = set()
    end = time.monotonic() + 30
    while len(seen) < 3 and time.monotonic() < end:
        seen.add(viewer.get("v.currentViews()[0]"))
        time.sleep(0.05)
    assert seen == {0, 1, 2}
    viewer.press("Pause")
    view = viewer.get("v.place")
    time.sleep(0.4)
    assert viewer.get("v.place") == view


@pytest.mark.parametrize(("speed", "place"), [("0.25", 0.25), ("1", 1.0), ("2", 2.0)])
def test_it_plays_at_the_chosen_speed(viewer: Viewer, speed: str, place: float) -> None:
    """Views lie half a second apart, so that half a second brings the next one at speed 1."""
    viewer.get(
        f"(v.rate.value = '{speed}', v.rate.dispatchEvent(new Event('change')), v.playing = true,"
        " cancelAnimationFrame(v.pending), v.last = 1000, v.frame(1250), v.frame(1500),"
        " v.playing = false, v.last = undefined, v.rate.value = '1')"
    )
    assert viewer.get("v.place") == pytest.approx(place)
    viewer.get("v.speed = 1")


def test_both_scenes_show_the_same_time(viewer: Viewer) -> None:
    for view in range(3):
        viewer.set("View", view)
        assert viewer.get("v.currentViews()") == [view, view]
        times = viewer.get("v.scenes.map((scene, i) => scene.times[v.currentViews()[i]])")
        assert times == [view / 2, view / 2]
        assert viewer.get("v.clock.textContent") == f"{view / 2:.2f} s · {view + 1}/3"


def test_a_shorter_scene_starts_and_ends_with_a_longer_one(viewer: Viewer) -> None:
    for place, views in ((0, [0, 0]), (3, [3, 1]), (6, [6, 2])):
        shown = f"v.currentViews.call({{views: 7, place: {place}, scenes: [{{views: 7}}, {{views: 3}}]}})"
        assert viewer.get(shown) == views


def test_mouse_and_keys_move_the_shared_camera_and_the_time(viewer: Viewer) -> None:
    before = viewer.picture()
    x, y = 220, 300
    viewer.page.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
    viewer.page.call(
        "Input.dispatchMouseEvent", type="mouseMoved", x=x + 60, y=y + 20, button="left", buttons=1
    )
    viewer.page.call(
        "Input.dispatchMouseEvent", type="mouseReleased", x=x + 60, y=y + 20, button="left", clickCount=1
    )
    viewer.settle()
    turned = viewer.picture()
    half = turned.shape[1] // 2
    assert difference(before[:, :half], turned[:, :half]) > 1
    assert difference(before[:, half:], turned[:, half:]) > 1, "the camera is shared"
    viewer.page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=400)
    viewer.page.wait_for(f"{ELEMENT}.orbit.distance > {ELEMENT}.orbit.home.distance")
    viewer.settle()
    assert drawn_share(viewer.picture()) < drawn_share(turned)
    for key, view in (("ArrowRight", 1), ("ArrowLeft", 0), ("ArrowLeft", 2)):
        viewer.page.call("Input.dispatchKeyEvent", type="keyDown", key=key)
        assert viewer.get("v.currentViews()[0]") == view
    viewer.page.call("Input.dispatchKeyEvent", type="keyDown", key="r")
    assert viewer.get("v.orbit.distance === v.orbit.home.distance")


def test_nothing_is_loaded_and_nothing_complained(viewer: Viewer) -> None:
    assert [url for url in viewer.page.requests if not url.startswith(("data:", "file:", "blob:"))] == []
    assert viewer.page.console == []


def test_every_frustum_holds_its_picture(tmp_path: Path) -> None:
    """Pictures of one colour each, and no points: what is left of a colour is its picture."""
    colours = np.array([[230, 30, 30], [30, 200, 30], [40, 60, 230]], dtype=np.uint8)
    scene = exact_scene()
    flat = torch.from_numpy(colours)[:, None, None].expand_as(scene.colours).contiguous()
    write_scene_page(tmp_path / "scene.html", [replace(scene, colours=flat)])
    with headless_chromium.Page(tmp_path / "profile", 900, 560) as page:
        page.open(tmp_path / "scene.html", READY)
        viewer = Viewer(page)
        viewer.press("Pause")
        viewer.get("(Object.assign(v.options, {confidence: 2, flow: false}), v.seek(1))")
        shown = viewer.picture().astype(int)
    for colour in colours:
        assert (np.abs(shown - colour).max(axis=-1) < 60).sum() > 50


def test_scenes_in_a_page_start_when_they_come_near(tmp_path: Path) -> None:
    fragments = [scene_fragment([exact_scene()]) for _ in range(2)]
    gap = '<p style="height: 4000px">text</p>'
    (tmp_path / "page.html").write_text(
        f"<!doctype html><body>{gap.join(fragments)}<script>{scene_script()}</script></body>", "utf-8"
    )
    states = "[...document.querySelectorAll('vggrpo-scene')].map(v => v.dataset.state).join()"
    with headless_chromium.Page(tmp_path / "profile", 800, 500) as page:
        page.open(tmp_path / "page.html", f"{states} === 'ready,waiting'")
        assert not page.evaluate(f"{ELEMENT}.playing")
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.wait_for(f"{states} === 'ready,ready'")
        assert page.console == []
