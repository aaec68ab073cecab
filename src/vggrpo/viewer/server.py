"""Scenes in the browser through viser, served to this machine only."""

import math
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from vggrpo.config import ConfigError
from vggrpo.geometry import matrix_to_quat_wxyz
from vggrpo.viewer.appearance import (
    SIZE_LEVELS,
    Colours,
    arrow_segments,
    path_segments,
    side_by_side,
    size_levels,
    visible_points,
)
from vggrpo.viewer.prepared import FloatArray, PreparedScene

HOST = "127.0.0.1"
SPEEDS = {"1/4": 0.25, "1/2": 0.5, "1": 1.0, "2": 2.0}
GAP = 2.4
"""Distance between two scenes, in radii of the larger one."""
IDLE_SECONDS = 0.05
FRUSTUM, OWN_FRUSTUM = 0.08, 0.16
MOST_FRUSTA = 12
FIELD = 0.4
"""Vertical field of view in radians: narrow, so that what stands beside the middle is not distorted."""
OVERLAP = 0.9
"""Radius of points in distances to their neighbours."""
ARROW = np.array([255, 194, 92], dtype=np.uint8)


def require_server(port: int) -> None:
    """Checks that scenes can be served on a port of this machine.

    Raises:
        ConfigError: if viser is not installed, or the port is taken.
    """
    if find_spec("viser") is None:
        raise ConfigError(
            "serving scenes needs viser, which is not installed: pip install 'vggrpo[viewer]', or write a "
            "page with --export scene.html"
        )
    with socket.socket() as probe:
        # A port that was in use a moment ago is free; one that is listened on is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of {HOST} cannot be used ({error.strerror}); choose another --port"
            ) from error


@dataclass(frozen=True)
class _Drawn:
    """The handles of a scene that change over time, and where it stands."""

    scene: PreparedScene
    root: Any
    clouds: Sequence[Any]
    frustum: Any
    cameras: Sequence[Any]
    arrows: Any | None


class SceneServer:
    """One scene, or two beside each other under one clock, on 127.0.0.1; viser's public sharing is off.

    Args:
        scenes: one or two.
        port: free; see `require_server`.

    Attributes:
        url: where to look.
        server: the viser server.
    """

    def __init__(self, scenes: Sequence[PreparedScene], port: int) -> None:
        self._updating = threading.Lock()
        self.server = _local_server(port)
        self.url = f"http://{HOST}:{self.server.get_port()}"
        self._views = max(len(scene.times) for scene in scenes)
        self._longest = next(scene for scene in scenes if len(scene.times) == self._views)
        self.server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        self.server.gui.main_panel.dock_right()
        self.server.scene.set_up_direction("-y")
        self._gap = GAP * max(scene.radius for scene in scenes)
        self._target = scenes[0].centre.astype(np.float64)
        self._drawn = [self._add_scene(f"/{number}", scene) for number, scene in enumerate(scenes)]
        self._add_controls(scenes)
        self._aim(scenes)
        self.update()

    def run(self) -> None:
        """Plays until interrupted."""
        began = time.monotonic()
        while True:
            if not self.playing.value or self._views < 2:
                time.sleep(IDLE_SECONDS)
                began = time.monotonic()
                continue
            times = self._longest.times
            wait = (times[-1] - times[0]) / (self._views - 1) / SPEEDS[self.speed.value]
            time.sleep(max(0.0, wait - (time.monotonic() - began)))
            began = time.monotonic()
            self.timeline.value = (self.timeline.value + 1) % self._views

    def update(self) -> None:
        """Draws what the controls say."""
        moment = self.timeline.value / max(1, self._views - 1)
        lines = []
        # Controls may change in several browsers at once.
        with self._updating, self.server.atomic():
            for drawn in self._drawn:
                scene = drawn.scene
                view = round(moment * (len(scene.times) - 1))
                points, colours, spacing = visible_points(
                    scene,
                    view,
                    self.colouring.value,
                    self.shown.value,
                    self.confidence.value,
                    self.all_views.value,
                )
                self._draw_points(drawn, points, colours, spacing)
                drawn.frustum.wxyz, drawn.frustum.position = _pose(scene, view)
                drawn.frustum.image = scene.colours[view]
                for camera in (drawn.frustum, *drawn.cameras):
                    camera.visible = self.cameras.value
                if drawn.arrows is not None:
                    drawn.arrows.points = arrow_segments(scene, view)
                    drawn.arrows.visible = self.flow.value
                lines.append(_words(scene, view))
            self.text.content = "\n\n".join(lines)

    def stop(self) -> None:
        """Ends the server."""
        self.server.stop()

    def _draw_points(self, drawn: _Drawn, points: FloatArray, colours: Colours, spacing: FloatArray) -> None:
        level, width = size_levels(drawn.scene, spacing)
        for number, cloud in enumerate(drawn.clouds):
            here = level == number
            cloud.visible = bool(here.any())
            if cloud.visible:
                cloud.points, cloud.colors = points[here], colours[here]
                cloud.point_size = self.size.value * OVERLAP * float(width[number])

    def _add_scene(self, name: str, scene: PreparedScene) -> _Drawn:
        world = self.server.scene
        root = world.add_frame(name, show_axes=False)
        middle = scene.centre - np.array([0, scene.radius, 0])
        world.add_label(f"{name}/label", scene.label or "scene", position=middle)
        start, start_colours, _ = visible_points(scene, 0, "Image", "All", 0.0, all_views=False)
        clouds = [
            world.add_point_cloud(
                f"{name}/points/{level}",
                start[:1],
                start_colours[:1],
                point_shape="circle",
                point_shading="flat",
                precision="float32",
            )
            for level in range(SIZE_LEVELS)
        ]
        path, colours = path_segments(scene)
        cameras = (
            [world.add_line_segments(f"{name}/path", path, _linear(colours), thickness=0.008)]
            if len(path)
            else []
        )
        for view in range(0, len(scene.times), math.ceil(len(scene.times) / MOST_FRUSTA)):
            wxyz, position = _pose(scene, view)
            cameras.append(
                world.add_camera_frustum(
                    f"{name}/cameras/{view}",
                    *_shape(scene, view),
                    scale=FRUSTUM,
                    thickness=0.002,
                    color=(150, 155, 165),
                    image=scene.colours[view],
                    wxyz=wxyz,
                    position=position,
                )
            )
        frustum = world.add_camera_frustum(
            f"{name}/camera", *_shape(scene, 0), scale=OWN_FRUSTUM, thickness=0.005, color=(235, 235, 240)
        )
        arrows = None
        if len(scene.arrows) and len(scene.times) > 1:
            arrows = world.add_arrows(
                f"{name}/flow",
                arrow_segments(scene, 0),
                _linear(ARROW),
                shaft_radius=0.003,
                head_radius=0.009,
                head_length=0.025,
            )
        return _Drawn(scene, root, clouds, frustum, cameras, arrows)

    def _add_controls(self, scenes: Sequence[PreparedScene]) -> None:
        gui = self.server.gui
        has_confidence = any(scene.confidence is not None for scene in scenes)
        knows_motion = any(scene.knows_motion for scene in scenes)
        colourings = [
            "Image",
            "Error",
            *(["Motion"] if knows_motion else []),
            *(["Confidence"] if has_confidence else []),
        ]
        self.text = gui.add_markdown("")
        self.playing = gui.add_checkbox("Play", self._views > 1)
        self.timeline = gui.add_slider("View", 0, max(1, self._views - 1), 1, 0, disabled=self._views < 2)
        self.speed = gui.add_dropdown("Speed", list(SPEEDS), initial_value="1")
        self.colouring = gui.add_dropdown("Colour", colourings, initial_value="Image")
        self.shown = gui.add_dropdown(
            "Points", ["All", "Static", "Moving"], initial_value="All", visible=knows_motion
        )
        self.all_views = gui.add_checkbox("All views", False, hint="static points of all views at once")
        self.cameras = gui.add_checkbox(
            "Cameras", True, hint="the path is coloured by the camera's acceleration"
        )
        self.flow = gui.add_checkbox("Flow", True, visible=any(len(scene.arrows) for scene in scenes))
        self.size = gui.add_slider("Point size", 0.2, 3.0, 0.1, 1.0)
        self.confidence = gui.add_slider(
            "Confidence",
            0.0,
            0.95,
            0.05,
            0.0,
            visible=has_confidence,
            hint="share of least confident points to hide",
        )
        for control in (
            self.timeline,
            self.colouring,
            self.shown,
            self.all_views,
            self.cameras,
            self.flow,
            self.size,
            self.confidence,
        ):
            control.on_update(lambda _: self.update())

    def _aim(self, scenes: Sequence[PreparedScene]) -> None:
        """Every browser starts behind the cameras and above them, and sees all scenes."""
        beside = self._gap * (len(scenes) - 1) / 2
        distance = 0.8 * (max(scene.radius for scene in scenes) + beside) / math.tan(FIELD / 2)
        start = np.array([-0.28, -0.27, -0.92])

        first = self.server.initial_camera
        first.fov, first.up, first.look_at = FIELD, (0.0, -1.0, 0.0), self._target
        first.position = self._target + distance * start / np.linalg.norm(start)

        def connected(client: Any) -> None:
            client.camera.on_update(self._place)
            self._place(client.camera)

        self.server.on_client_connect(connected)

    def _place(self, camera: Any) -> None:
        """Puts the scenes beside each other for the browser whose camera moved last."""
        # The camera is read by whoever draws: calls may come late and in any order.
        with self._updating, self.server.atomic():
            places = side_by_side(camera.position, camera.wxyz, self._target, self._gap, len(self._drawn))
            for drawn, (wxyz, position) in zip(self._drawn, places, strict=True):
                drawn.root.wxyz, drawn.root.position = wxyz, position


def _local_server(port: int) -> Any:
    import viser

    class LocalServer(viser.ViserServer):
        """A server whose scenes cannot be sent through viser's public relay, whatever a browser asks for."""

        def request_share_url(self, verbose: bool = True) -> None:
            return None

    return LocalServer(host=HOST, port=port, verbose=False)


def _linear(colours: Colours) -> Colours:
    """For lines and arrows, whose colours viser takes for amounts of light, unlike those of points."""
    return np.round(255 * (colours / 255) ** 2.2).astype(np.uint8)


def _pose(scene: PreparedScene, view: int) -> tuple[FloatArray, FloatArray]:
    """Orientation (w, x, y, z) and centre of a camera."""
    camera = torch.from_numpy(scene.camera_to_world[view])
    return matrix_to_quat_wxyz(camera[:3, :3]).numpy(), camera[:3, 3].numpy()


def _shape(scene: PreparedScene, view: int) -> tuple[float, float]:
    """Vertical field of view in radians and aspect ratio of a camera."""
    height, width = scene.valid.shape[1:]
    fx, fy = scene.intrinsics[view, 0, 0], scene.intrinsics[view, 1, 1]
    return 2 * math.atan(0.5 * height / fy), width / fx / (height / fy)


def _words(scene: PreparedScene, view: int) -> str:
    """What the panel says about a scene."""
    rows = [f"| {name} | {_or_dash(value, '.3f')} |" for name, value in scene.rewards]
    rows.append(f"| Error of this view | {_or_dash(float(scene.view_error[view]), '.1%')} |")
    return "\n".join([f"| **{scene.label or 'Scene'}** | {scene.times[view]:.2f} s |", "|---|---|", *rows])


def _or_dash(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"
