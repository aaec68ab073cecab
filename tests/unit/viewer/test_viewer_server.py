"""The served viewer: what it draws at which moment, whom it listens to, and what it refuses."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from exact_scenes import exact_scene

from vggrpo.config import ConfigError
from vggrpo.viewer.appearance import arrow_segments, path_segments, ramp, visible_points
from vggrpo.viewer.prepared import PreparedScene, prepare_scene
from vggrpo.viewer.server import HOST, SceneServer, require_server


@pytest.fixture(scope="module")
def scene() -> PreparedScene:
    return prepare_scene(exact_scene())


def test_points_are_those_that_are_asked_for(scene: PreparedScene) -> None:
    counts = {
        shown: len(visible_points(scene, 1, "Image", shown, 0.0, False)[0])
        for shown in ("All", "Static", "Moving")
    }
    assert counts["All"] == scene.valid[1].sum()
    assert counts["Static"] == (scene.valid & scene.static)[1].sum()
    assert counts["Moving"] == counts["All"] - counts["Static"] > 0
    assert scene.confidence is not None
    surer = visible_points(scene, 1, "Image", "All", 0.6, False)[0]
    assert len(surer) == (scene.confidence[1] >= 0.6).sum() < counts["All"]


def test_all_views_add_only_what_rests(scene: PreparedScene) -> None:
    points, colours = visible_points(scene, 1, "Image", "All", 0.0, True)
    rest = scene.valid & scene.static
    assert len(points) == scene.valid[1].sum() + rest[0].sum() + rest[2].sum()
    assert len(colours) == len(points)
    moving = visible_points(scene, 1, "Image", "Moving", 0.0, True)[0]
    assert len(moving) == (scene.valid & ~scene.static)[1].sum()


def test_colours_say_what_was_chosen(scene: PreparedScene) -> None:
    image = visible_points(scene, 0, "Image", "All", 0.0, False)[1]
    assert (image == scene.colours[0].reshape(-1, 3)).all()
    error = np.full_like(scene.error, np.nan)
    error[0, 0, :3] = [0.0, 0.05, 1.0]
    heat = visible_points(replace(scene, error=error), 0, "Error", "All", 0.0, False)[1]
    expected = np.round(255 * ramp(np.array([0.0, 0.5, 1.0], dtype=np.float32)))
    np.testing.assert_array_equal(heat[:3], expected)
    assert (heat[3:] == heat[3]).all()
    motion = visible_points(scene, 0, "Motion", "All", 0.0, False)[1].astype(int)
    static = scene.static[0].reshape(-1)
    assert (np.ptp(motion[static], axis=1) == 0).all(), "what rests is grey"
    assert (motion[~static][:, 0] > motion[~static][:, 2]).all()


def test_segments_follow_the_camera_and_the_flow(scene: PreparedScene) -> None:
    segments, colours = path_segments(scene)
    assert segments.shape == colours.shape == (2, 2, 3)
    np.testing.assert_array_equal(segments[1, 0], scene.camera_to_world[1, :3, 3])
    np.testing.assert_array_equal(arrow_segments(scene, 1), scene.arrows[:, [1, 2]])
    np.testing.assert_array_equal(arrow_segments(scene, 2), scene.arrows[:, [1, 2]])


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_taken_is_refused(taken_port: int) -> None:
    pytest.importorskip("viser", reason="the extra `viewer` is not installed")
    with pytest.raises(ConfigError, match=rf"port {taken_port} of 127\.0\.0\.1 cannot be used .* --port"):
        require_server(taken_port)


def test_without_viser_the_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggrpo.viewer.server.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"vggrpo\[viewer\].*--export"):
        require_server(1)


def test_the_server_draws_what_the_controls_say_and_shares_nothing(scene: PreparedScene) -> None:
    pytest.importorskip("viser", reason="the extra `viewer` is not installed")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    require_server(port)
    server = SceneServer([replace(scene, label="Before"), replace(scene, label="After")], port)
    try:
        assert server.url == f"http://127.0.0.1:{port}"
        assert server.server.get_host() == HOST
        assert server.server.request_share_url() is None
        with pytest.raises(ConfigError, match="cannot be used"):
            require_server(port)
        server.timeline.value = 2
        server.shown.value = "Moving"
        server.update()
        moving = scene.points[2][~scene.static[2]]
        for drawn in server._drawn:
            np.testing.assert_allclose(drawn.points.points, moving, rtol=1e-6)
            np.testing.assert_allclose(drawn.frustum.position, scene.camera_to_world[2, :3, 3], rtol=1e-6)
        assert "0.750" in server.text.content
        assert "nan" not in server.text.content
    finally:
        server.stop()
