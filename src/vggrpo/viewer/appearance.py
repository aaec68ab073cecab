"""What the served viewer draws of a scene at one moment: points, their colours, and segments."""

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vggrpo.geometry import quat_wxyz_to_matrix
from vggrpo.viewer.html_payload import ERROR_REACH
from vggrpo.viewer.prepared import FloatArray, PreparedScene

Colouring = Literal["Image", "Error", "Motion", "Confidence"]
Shown = Literal["All", "Static", "Moving"]

RAMP = np.array([[43, 63, 140], [47, 143, 179], [99, 194, 154], [242, 207, 91], [239, 91, 60]]) / 255
"""From nothing to much; the exported page has the same (assets/shaders.js)."""
NOT_COMPARED = np.array([0.16, 0.17, 0.19])
MOVING = np.array([1.0, 0.6, 0.22])
GREY = np.array([0.299, 0.587, 0.114])

SIZE_LEVELS, LEVEL_STEP = 6, 1.5
"""A point cloud of viser has one size, so points go to clouds, each of points this much wider."""

Colours = NDArray[np.uint8]
Vector = NDArray[np.float64]


def ramp(values: FloatArray) -> NDArray[np.float64]:
    """Colours [..., 3] in [0, 1] of shares [...]."""
    place = np.clip(values, 0, 1)
    stops = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(place, stops, RAMP[:, channel]) for channel in range(3)], axis=-1)


def visible_points(
    scene: PreparedScene,
    view: int,
    colouring: Colouring,
    shown: Shown,
    least_confidence: float,
    all_views: bool,
) -> tuple[FloatArray, Colours, FloatArray]:
    """Positions [N, 3], colours [N, 3] and `PreparedScene.spacing` [N] of the points to draw.

    Args:
        scene: the scene.
        view: the current one.
        colouring: what the colour says.
        shown: which of the points.
        least_confidence: share of least confident points that are left out; without effect if the scene has
            no confidence.
        all_views: also the static points of all other views. What moves is somewhere else in each of them.
    """
    keep = scene.valid.copy()
    if scene.confidence is not None:
        keep &= scene.confidence >= least_confidence
    if shown != "All":
        keep &= scene.static == (shown == "Static")
    others = np.arange(len(keep)) != view
    keep[others] &= scene.static[others] & all_views
    if shown == "Moving":
        keep[others] = False
    return scene.points[keep], _colours(scene, colouring, keep), scene.spacing[keep]


def _colours(scene: PreparedScene, colouring: Colouring, keep: NDArray[np.bool_]) -> Colours:
    colours = scene.colours[keep] / 255
    if colouring == "Error":
        error = scene.error[keep]
        colours = np.where(
            np.isfinite(error)[:, None], ramp(np.nan_to_num(error) / ERROR_REACH), NOT_COMPARED
        )
    elif colouring == "Motion":
        grey = (colours @ GREY)[:, None]
        static = scene.static[keep][:, None]
        colours = np.where(
            static, 0.12 + 0.42 * grey, (0.85 * MOVING + 0.15 * colours) * (0.65 + 0.45 * grey)
        )
    elif colouring == "Confidence" and scene.confidence is not None:
        colours = ramp(scene.confidence[keep])
    return np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8)


def path_segments(scene: PreparedScene) -> tuple[FloatArray, Colours]:
    """The camera's path as segments [T - 1, 2, 3], and colours [T - 1, 2, 3] by its acceleration."""
    centres = scene.camera_to_world[:, :3, 3]
    colours = np.round(255 * ramp(scene.acceleration)).astype(np.uint8)
    return np.stack([centres[:-1], centres[1:]], axis=1), np.stack([colours[:-1], colours[1:]], axis=1)


def arrow_segments(scene: PreparedScene, view: int) -> FloatArray:
    """Where points of view 0 go from the view, [A, 2, 3]; at the end, where they have come from."""
    last = scene.arrows.shape[1] - 1
    step = max(1, round((last + 1) / 8))
    start = min(view, max(0, last - step))
    return scene.arrows[:, [start, min(last, start + step)]]


def size_levels(scene: PreparedScene, spacing: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of points, their level in [0, `SIZE_LEVELS`) by their spacing [N]; and the width of each level."""
    least = float(np.quantile(scene.spacing[scene.valid], 0.02))
    steps = np.floor(np.log(np.maximum(spacing / least, 1)) / math.log(LEVEL_STEP))
    level: NDArray[np.int64] = np.minimum(steps, SIZE_LEVELS - 1).astype(np.int64)
    width: NDArray[np.float64] = least * LEVEL_STEP ** (np.arange(SIZE_LEVELS, dtype=np.float64) + 0.5)
    return level, width


def side_by_side(
    eye: Vector, wxyz: Vector, target: Vector, gap: float, count: int
) -> list[tuple[Vector, Vector]]:
    """Where scenes stand for one camera, so that each looks as if it alone were looked at.

    They stand left and right of `target` in its picture, each turned by the angle at which it lies beside the
    middle.

    Args:
        eye: [3], the camera's centre.
        wxyz: its orientation; its x is on the right, its y down.
        target: [3], the point of every scene that is looked at.
        gap: distance between two scenes.
        count: of scenes.

    Returns:
        For each scene the orientation (w, x, y, z) and the position of its origin.
    """
    right, down = _matrix(wxyz).T[:2]
    places = []
    for number in range(count):
        shift = (number - (count - 1) / 2) * gap
        half = 0.5 * math.atan2(shift, float(np.linalg.norm(target - eye)))
        turn = np.concatenate([[math.cos(half)], math.sin(half) * down])
        places.append((turn, target + shift * right - _matrix(turn) @ target))
    return places


def _matrix(wxyz: Vector) -> Vector:
    matrix: Vector = quat_wxyz_to_matrix(torch.from_numpy(np.asarray(wxyz, dtype=np.float64))).numpy()
    return matrix
