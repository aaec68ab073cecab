"""One picture of a clip: where the camera goes and how steadily, what it sees, and where views disagree."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vggrpo.evaluation.scoring.readers import SceneView
from vggrpo.geometry import (
    SceneGeometry,
    angular_velocity,
    camera_centres,
    difference,
    linear_velocity,
    median_depth,
    safe_norm,
)
from vggrpo.io import atomic_file
from vggrpo.rewards import ReprojectionReward, Reward, SceneReward
from vggrpo.viewer.scene_building import depth_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPEED, ACCELERATION, GREY = "#0b6e99", "#c4601d", "#666666"
FONT = 8.5
STRIP_WIDTH = 12.5
"""Inches that the views of a strip share."""
MOST_STRIP_HEIGHT = 2.2
MOST_COLUMNS = 11
"""Views beside each other; more make a second row."""
GAP, LABEL_GAP = 0.04, 0.22
"""Between the views of a strip: beside each other and, for the label, below, as shares of their size."""

FloatArray = NDArray[np.float64]


def plot_scores(
    name: str, seen: SceneView, rewards: Mapping[str, SceneReward], scored: Mapping[str, Reward], path: Path
) -> None:
    """Draws trajectory, speed and acceleration, and strips of the views, their depths and their reprojection
    errors; the suffix of `path` sets the format.

    Args:
        name: of the clip.
        seen: its scene, whose numbers are all finite.
        rewards: what was asked for, by name.
        scored: what came of it, by name.
        path: of the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    scene = seen.scene.detach().to("cpu", torch.float32)
    reprojection = next((r for r in rewards.values() if isinstance(r, ReprojectionReward)), None)
    strips = ["depth"] if seen.images is None else ["views", "depth"]
    strips += ["error"] if reprojection is not None else []
    rows, columns = _layout(scene.num_views)
    tile = STRIP_WIDTH / columns * scene.height / scene.width
    height = rows * (min(tile, MOST_STRIP_HEIGHT) + 0.25) + 0.1
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.04)
    figure = Figure(figsize=(14.0, 3.9 + height * len(strips)), layout=layout)
    figure.suptitle(_title(name, scored), fontsize=10, parse_math=False)
    grid = figure.add_gridspec(1 + len(strips), 3, height_ratios=[3.1] + [height] * len(strips))
    _draw_path(figure.add_subplot(grid[0, 0]), scene)
    _draw_speed(
        figure.add_subplot(grid[0, 1]), linear_velocity(scene.camera_to_world)[0] / _unit(scene), "depths"
    )
    turning = angular_velocity(scene.camera_to_world)[0].rad2deg()
    _draw_speed(figure.add_subplot(grid[0, 2]), turning, "degrees")
    for row, strip in enumerate(strips, start=1):
        axes = figure.add_subplot(grid[row, :])
        if strip == "views":
            assert seen.images is not None
            _draw_strip(axes, "views", list(seen.images), [f"frame {n}" for n in seen.view_frames])
        elif strip == "depth":
            labels = [f"median {_median(depth):.3g}" for depth in scene.depth_z[0]]
            _draw_strip(axes, "depth", list(depth_colours(scene.depth_z[0]).numpy()), labels)
        elif reprojection is not None:
            _draw_errors(figure, axes, reprojection, scene, scored)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _title(name: str, scored: Mapping[str, Reward]) -> str:
    parts = [f"{reward.replace('_', ' ')} {float(result.value[0]):.3f}" for reward, result in scored.items()]
    return ":  ".join([name, ",  ".join(parts)]) if parts else name


def _draw_path(axes: "Axes", scene: SceneGeometry) -> None:
    """The camera from above, in the first camera's axes, with the viewing directions."""
    centres = camera_centres(scene.camera_to_world)[0]
    first, unit = scene.camera_to_world[0, 0, :3, :3], _unit(scene)
    x, y, z = ((centres - centres[0]) @ first / unit).double().numpy().T
    directions = (scene.camera_to_world[0, :, :3, 2] @ first).double().numpy()
    spread = max(float(np.ptp(x)), float(np.ptp(z)), 1e-3)
    length = 0.2 * spread
    axes.plot(x, z, color=SPEED, marker="o", ms=3.5)
    axes.plot(x[:1], z[:1], color=ACCELERATION, marker="o", ms=6)
    axes.quiver(
        x,
        z,
        length * directions[:, 0],
        length * directions[:, 2],
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.004,
        color=GREY,
    )
    axes.set_title(f"camera from above (height varies by {np.ptp(y):.2g})", fontsize=10)
    axes.set_xlabel("right, median depths", fontsize=FONT)
    axes.set_ylabel("forward, median depths", fontsize=FONT)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.25)
    axes.grid(alpha=0.25)


def _draw_speed(axes: "Axes", velocity: torch.Tensor, unit: str) -> None:
    """Speeds of the steps between views and accelerations at the views between, of velocities [T - 1, 3]."""
    what = "camera speed" if unit == "depths" else "camera turning"
    speed = safe_norm(velocity).double().numpy()
    axes.plot(np.arange(len(speed)) + 0.5, speed, color=SPEED, marker="o", ms=3.5, label="speed")
    if len(speed) > 1:
        change = safe_norm(difference(velocity)).double().numpy()
        places = np.arange(1, len(change) + 1)
        axes.plot(places, change, color=ACCELERATION, marker="s", ms=3.5, label="acceleration")
    axes.set_title(what, fontsize=10)
    axes.set_xlabel("view", fontsize=FONT)
    axes.set_ylabel(f"{unit} a view", fontsize=FONT)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=FONT)
    axes.grid(alpha=0.25)


def _draw_errors(
    figure: "Figure",
    axes: "Axes",
    reward: ReprojectionReward,
    scene: SceneGeometry,
    scored: Mapping[str, Reward],
) -> None:
    """The errors that the views' e_i average; what is not compared is grey."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    error = reward.error_map(scene)[0].double().numpy()
    finite = error[np.isfinite(error)]
    top = max(float(np.quantile(finite, 0.98)), 1e-6) if len(finite) else 1.0
    scale = Normalize(0, top)
    colours = colormaps["magma"](scale(np.nan_to_num(error)))[..., :3]
    colours[~np.isfinite(error)] = 0.82
    result = next((r for r in scored.values() if "view_error" in r.parts), None)
    view_errors = [math.nan] * len(error) if result is None else result.parts["view_error"][0].tolist()
    labels = [f"e = {value:.3g}" if math.isfinite(value) else "not valid" for value in view_errors]
    unit = "depths" if reward.relative else "units"
    _draw_strip(
        axes, "reprojection\nerror", [(255 * view).round().astype(np.uint8) for view in colours], labels
    )
    bar = figure.colorbar(ScalarMappable(scale, "magma"), ax=axes, pad=0.01, fraction=0.02)
    bar.set_label(unit, fontsize=FONT)
    bar.ax.tick_params(labelsize=FONT)


def _draw_strip(axes: "Axes", name: str, images: list[NDArray[np.uint8]], labels: list[str]) -> None:
    """Images in rows, each with its label above."""
    rows, columns = _layout(len(images))
    height, width = images[0].shape[:2]
    down, across = height + max(2, round(LABEL_GAP * height)), width + max(1, round(GAP * width))
    canvas = np.full((rows * down - (down - height), columns * across - (across - width), 3), 255, np.uint8)
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        top, left = down * (place // columns), across * (place % columns)
        canvas[top : top + height, left : left + width] = image
        where = (left + width / 2, top - 0.03 * height)
        axes.text(*where, label, ha="center", va="bottom", fontsize=FONT - 1, color=GREY)
    axes.imshow(canvas, interpolation="nearest")
    axes.set_ylabel(name, fontsize=FONT)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _layout(views: int) -> tuple[int, int]:
    """Rows and columns of a strip."""
    rows = math.ceil(views / MOST_COLUMNS)
    return rows, math.ceil(views / rows)


def _unit(scene: SceneGeometry) -> float:
    return float(median_depth(scene.depth_z))


def _median(depth: torch.Tensor) -> float:
    return float(median_depth(depth[None, None]))
