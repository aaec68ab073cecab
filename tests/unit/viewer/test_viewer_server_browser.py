"""The served viewer in a headless browser: what is drawn, what its controls do, and that nothing leaves."""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from exact_scenes import exact_scene

import headless_chromium
from vggrpo.viewer.prepared import prepare_scene
from vggrpo.viewer.server import HOST, SceneServer

pytest.importorskip("viser", reason="the extra `viewer` is not installed")
pytestmark = pytest.mark.skipif(headless_chromium.EXECUTABLE is None, reason="no Chromium is installed")

Picture = np.ndarray[Any, np.dtype[np.uint8]]
LABEL = "[...document.querySelectorAll('label')].find(label => label.innerText === '{}')".format
NOTICE = 190
"""Pixels from the top that a notice about drawing without a GPU covers."""


@pytest.fixture(scope="module")
def server() -> Iterator[SceneServer]:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    scene = prepare_scene(exact_scene())
    shaken = replace(scene, label="Before", acceleration=np.ones_like(scene.acceleration))
    server = SceneServer([shaken, replace(scene, label="After")], port)
    server.playing.value = False
    yield server
    server.stop()


@pytest.fixture(scope="module")
def page(server: SceneServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[headless_chromium.Page]:
    folder = tmp_path_factory.mktemp("served")
    with headless_chromium.Page(folder / "profile", 1200, 600) as page:
        # Else viser halves the picture's resolution when it is drawn slowly, in the midst of a test.
        page.visit(f"{server.url}/?fixedDpr=1", "document.body?.innerText.includes('Point size')")
        eventually(lambda: drawn_share(picture(page, folder)) > 0.05)
        settled(page, folder)
        yield page


def eventually(is_true: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for what travels between browser and server."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def picture(page: headless_chromium.Page, folder: Path) -> Picture:
    """What is shown of the scenes, RGB: without the notice above and the controls on the right."""
    page.screenshot(folder / "shown.png", whole=False)
    edge = page.evaluate(f"{LABEL('Cameras')}.getBoundingClientRect().left")
    shown = cv2.imread(str(folder / "shown.png"))[NOTICE:, : int(edge) - 20]
    return cv2.cvtColor(shown, cv2.COLOR_BGR2RGB)


def settled(page: headless_chromium.Page, folder: Path) -> Picture:
    """What is shown once it no longer changes."""
    shown = picture(page, folder)

    def is_settled() -> bool:
        nonlocal shown
        last, shown = shown, picture(page, folder)
        return difference(last, shown) == 0

    eventually(is_settled)
    return shown


def drawn_share(shown: Picture) -> float:
    """Share of pixels that are clearly no background, which is dark and grey."""
    return float((shown.max(axis=-1) > 60).mean())


def difference(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def test_both_scenes_are_drawn_from_one_angle(page: headless_chromium.Page, tmp_path: Path) -> None:
    shown = picture(page, tmp_path)
    half = shown.shape[1] // 2
    panes = shown[:, :half], shown[:, half : 2 * half]
    for pane in panes:
        assert 0.05 < drawn_share(pane) < 0.9
        assert len(np.unique(pane.reshape(-1, 3) // 32, axis=0)) > 12
    assert drawn_share(panes[0]) == pytest.approx(drawn_share(panes[1]), rel=0.05)
    # The same but for the path's colour, red where the camera shakes.
    red = [((pane[..., 0] > 200) & (pane[..., 1] < 120) & (pane[..., 2] < 110)).sum() for pane in panes]
    assert red[0] > red[1] + 50


def test_the_controls_change_the_picture(
    page: headless_chromium.Page, server: SceneServer, tmp_path: Path
) -> None:
    before = settled(page, tmp_path)
    for _ in range(2):
        state = server.cameras.value
        page.evaluate(f"document.getElementById({LABEL('Cameras')}.htmlFor).click()")
        eventually(lambda state=state: server.cameras.value != state)
        if not server.cameras.value:
            eventually(lambda: difference(before, picture(page, tmp_path)) > 0.3)
    eventually(lambda: difference(before, picture(page, tmp_path)) < 0.1)
    page.evaluate("document.querySelector('[role=slider]').focus()")
    for kind in ("keyDown", "keyUp") * 2:
        page.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight")
    eventually(lambda: server.timeline.value == 2)
    eventually(lambda: difference(before, picture(page, tmp_path)) > 1)
    assert page.evaluate("document.body.innerText.match(/1.00 s/g).length") == 2, "one clock for both"


def test_dragging_keeps_both_scenes_in_sight(page: headless_chromium.Page, tmp_path: Path) -> None:
    before = settled(page, tmp_path)
    half = before.shape[1] // 2
    x, y = half, 400
    page.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
    for step in range(1, 11):
        page.call(
            "Input.dispatchMouseEvent", type="mouseMoved", x=x + 18 * step, y=y, button="left", buttons=1
        )
    page.call("Input.dispatchMouseEvent", type="mouseReleased", x=x + 180, y=y, button="left", clickCount=1)

    def turned() -> bool:
        shown = picture(page, tmp_path)
        panes = shown[:, :half], shown[:, half : 2 * half]
        shares = [drawn_share(pane) for pane in panes]
        moved = min(
            difference(shown[:, :half], before[:, :half]), difference(shown[:, half:], before[:, half:])
        )
        return moved > 2 and min(shares) > 0.03 and max(shares) < 1.25 * min(shares)

    eventually(turned)


def test_nothing_leaves_this_machine_and_nothing_complained(
    page: headless_chromium.Page, server: SceneServer
) -> None:
    own = server.url.removeprefix("http")
    allowed = ("data:", *(scheme + own for scheme in ("http", "ws", "blob:http")))
    assert [url[:80] for url in page.requests if not url.startswith(allowed)] == []
    assert any(url.startswith("ws") for url in page.requests)
    # viser itself uses a module of three.js that is to be renamed.
    assert [line for line in page.console if "has been deprecated" not in line] == []
