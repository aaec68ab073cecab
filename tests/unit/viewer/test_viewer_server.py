"""The served viewer: what it draws at which moment, whom it listens to, and what it refuses."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from exact_scenes import exact_scene

from vggrpo.config import ConfigError
from vggrpo.geometry import matrix_to_quat_wxyz, quat_wxyz_to_matrix
from vggrpo.viewer.appearance import (
    arrow_segments,
    path_segments,
    ramp,
    side_by_side,
    size_levels,
    visible_points,
)
from vggrpo.viewer.prepared import WIDEST, PreparedScene, prepare_scene
from vggrpo.viewer.server import HOST, IDLE_SECONDS, SceneServer, require_server


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
    points, colours, spacing = visible_points(scene, 1, "Image", "All", 0.0, True)
    rest = scene.valid & scene.static
    assert len(points) == scene.valid[1].sum() + rest[0].sum() + rest[2].sum()
    assert len(colours) == len(spacing) == len(points)
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
    shaken = replace(scene, acceleration=np.array([0.0, 0.25, 1.0], dtype=np.float32))
    blue, cyan, red = (43, 63, 140), (47, 143, 179), (239, 91, 60)
    np.testing.assert_array_equal(path_segments(shaken)[1], [[blue, cyan], [cyan, red]])
    np.testing.assert_array_equal(arrow_segments(scene, 1), scene.arrows[:, [1, 2]])
    np.testing.assert_array_equal(arrow_segments(scene, 2), scene.arrows[:, [1, 2]])


def test_points_are_wide_enough_to_touch_on_a_surface_and_no_wider_across_an_edge(
    scene: PreparedScene,
) -> None:
    """On each axis of the raster, half the distance to the nearer neighbour is bridged."""
    points, valid = scene.points[0], scene.valid[0]
    inner = valid[1:-1, 1:-1] & valid[2:, 1:-1] & valid[:-2, 1:-1] & valid[1:-1, 2:] & valid[1:-1, :-2]
    steps = [
        np.linalg.norm(points[rows, columns] - points[1:-1, 1:-1], axis=-1)
        for rows, columns in (
            (slice(2, None), slice(1, -1)),
            (slice(None, -2), slice(1, -1)),
            (slice(1, -1), slice(2, None)),
            (slice(1, -1), slice(None, -2)),
        )
    ]
    gap = np.maximum(np.minimum(steps[0], steps[1]), np.minimum(steps[2], steps[3]))
    distance = np.linalg.norm(points - scene.camera_to_world[0, :3, 3], axis=-1)[1:-1, 1:-1]
    limit = WIDEST * distance / scene.intrinsics[0, [0, 1], [0, 1]].mean()
    spacing = scene.spacing[0, 1:-1, 1:-1]
    assert (spacing >= np.minimum(gap, limit) - 1e-5)[inner].all()
    assert (spacing <= limit + 1e-5)[inner].all()
    edge = np.maximum.reduce(steps) > 3 * limit
    assert (edge & inner).any(), "the clip has edges of depth"
    shown = scene.spacing[scene.valid]
    level, width = size_levels(scene, shown)
    ratio = width[level] / shown
    assert np.quantile(ratio, 0.05) > 0.8
    assert np.quantile(ratio, 0.95) < 1.25


def test_scenes_beside_each_other_are_seen_by_one_camera() -> None:
    target, gap = np.array([0.3, -0.2, 1.5]), 3.0
    for eye, up in (([-1.0, -2.0, -6.0], [0.0, -1.0, 0.0]), ([7.0, 1.0, 2.0], [0.2, -0.8, 0.1])):
        ahead = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(ahead, up) / np.linalg.norm(np.cross(ahead, up))
        camera = np.stack([right, np.cross(ahead, right), ahead], axis=1)
        wxyz = matrix_to_quat_wxyz(torch.from_numpy(camera)).numpy()
        looks, stands = [], []
        for turned, position in side_by_side(np.array(eye), wxyz, target, gap, 2):
            turn = quat_wxyz_to_matrix(torch.from_numpy(turned)).numpy()
            looks.append(turn.T @ (eye - position) - target)
            stands.append(turn @ target + position)
        for look in looks:
            np.testing.assert_allclose(look / np.linalg.norm(look), -ahead, atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(looks[0]), np.linalg.norm(looks[1]))
        np.testing.assert_allclose(stands[1] - stands[0], gap * right, atol=1e-9)
    (turned, position), *_ = side_by_side(np.array(eye), wxyz, target, gap, 1)
    np.testing.assert_allclose(np.concatenate([turned, position]), [1, 0, 0, 0, 0, 0, 0], atol=1e-12)


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


@pytest.fixture
def port() -> int:
    """A free one."""
    pytest.importorskip("viser", reason="the extra `viewer` is not installed")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def test_the_server_draws_what_the_controls_say_and_shares_nothing(scene: PreparedScene, port: int) -> None:
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
            points = np.concatenate([cloud.points for cloud in drawn.clouds if cloud.visible])
            assert sorted(points.tolist()) == sorted(moving.tolist())
            np.testing.assert_allclose(drawn.frustum.position, scene.camera_to_world[2, :3, 3], rtol=1e-6)
        assert "0.750" in server.text.content
        assert "nan" not in server.text.content
    finally:
        server.stop()


class EndOfTimeError(Exception):
    """Ends the endless loop."""


class Clock:
    """Time that passes only while somebody sleeps, up to an end."""

    def __init__(self, end: float) -> None:
        self.now, self.end = 0.0, end

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.end:
            raise EndOfTimeError


@pytest.mark.parametrize(("speed", "views"), [("1/4", 0), ("1", 2), ("2", 1)])
def test_it_plays_at_the_chosen_speed_and_comes_round(
    scene: PreparedScene, port: int, speed: str, views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views lie half a second apart, three of them: in 1.2 s no view, two, or four pass."""
    server = SceneServer([scene], port)
    try:
        clock = Clock(1.2)
        monkeypatch.setattr("vggrpo.viewer.server.time", clock)
        server.speed.value = speed
        with pytest.raises(EndOfTimeError):
            server.run()
        assert server.timeline.value == views
        server.playing.value = False
        clock.end += 100 * IDLE_SECONDS
        with pytest.raises(EndOfTimeError):
            server.run()
        assert server.timeline.value == views, "paused"
    finally:
        server.stop()
