"""What both viewers draw of a scene: its numbers in median depths, and what is derived from them."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggrpo.geometry import (
    SceneGeometry,
    difference,
    linear_velocity,
    median_depth,
    safe_norm,
    static_mask_from_flow,
    valid_depth,
)
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.rewards.camera_motion import MIN_VIEWS
from vggrpo.viewer.scene_file import Scene4D

FARTHEST = 50.0
"""Median depths from the cameras beyond which a point is left out: one at a thousand would coarsen all."""
MAX_ARROWS = 40
"""Arrows of scene flow that are drawn at most."""
WIDEST = 2.0
"""Distance of two neighbouring points, in pixels at their depth, beyond which they are not one surface."""

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PreparedScene:
    """T views of H x W points, ready to be drawn.

    Lengths are in median depths, so that two scenes can be looked at from one place whatever their scales.
    """

    label: str
    prompt: str | None
    times: list[float]
    """Of each view, in seconds."""
    scale: float
    """The median depth in scene units."""
    points: FloatArray
    """[T, H, W, 3] world coordinates; 0 where not `valid`."""
    colours: NDArray[np.uint8]
    """[T, H, W, 3]."""
    valid: BoolArray
    """[T, H, W], a surface that is drawn."""
    static: BoolArray
    """[T, H, W]; True everywhere if nothing is known about motion."""
    knows_motion: bool
    """Whether the scene says what moves."""
    confidence: FloatArray | None
    """[T, H, W], share of the scene's points that are no surer than this one."""
    error: FloatArray
    """[T, H, W] reprojection error of `ReprojectionReward.robust`; NaN where not compared."""
    camera_to_world: FloatArray
    """[T, 4, 4]."""
    intrinsics: FloatArray
    """[T, 3, 3]."""
    acceleration: FloatArray
    """[T] in [0, 1], |v_i - v_{i-1}| / (|v_i| + |v_{i-1}| + d) of the camera-motion reward; its neighbour's
    value at both ends, 0 with fewer than three views."""
    arrows: FloatArray
    """[A, T, 3] positions over time of some points of view 0 that move."""
    rewards: list[tuple[str, float]]
    """(name for people, value)."""
    too_far: int
    """Points left out because they lie beyond `FARTHEST`."""

    @property
    def view_error(self) -> FloatArray:
        """[T], mean of the compared pixels' errors; NaN without any."""
        compared = np.isfinite(self.error)
        total = np.where(compared, self.error, 0).sum(axis=(1, 2))
        count = compared.sum(axis=(1, 2))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)

    @cached_property
    def spacing(self) -> FloatArray:
        """[T, H, W], how wide a point must be to touch its neighbours on the same surface.

        On each axis of the raster that is the nearer neighbour: across an edge of depth the other one is far.
        """
        pixel = np.linalg.norm(self.points - self.camera_to_world[:, None, None, :3, 3], axis=-1)
        pixel /= self.intrinsics[:, [0, 1], [0, 1]].mean(axis=1)[:, None, None]
        limit = WIDEST * pixel
        widest = pixel
        for axis in (1, 2):
            step = np.linalg.norm(np.diff(self.points, axis=axis), axis=-1)
            both = np.delete(self.valid, 0, axis) & np.delete(self.valid, -1, axis)
            step = np.where(both, step, np.inf)
            edge = np.full_like(np.take(pixel, [0], axis), np.inf)
            before, after = np.concatenate([edge, step], axis), np.concatenate([step, edge], axis)
            widest = np.maximum(widest, np.minimum(np.minimum(before, after), limit))
        return widest.astype(np.float32)

    @property
    def centre(self) -> FloatArray:
        """[3], the middle of what an orbiting camera should show: all cameras and most of the points."""
        low, high = np.quantile(self.points[self.valid], (0.04, 0.96), axis=0)
        cameras = self.camera_to_world[:, :3, 3]
        low, high = np.minimum(low, cameras.min(axis=0)), np.maximum(high, cameras.max(axis=0))
        return ((low + high) / 2).astype(np.float32)

    @property
    def radius(self) -> float:
        """Distance from the centre within which nine tenths of the points and all cameras lie."""
        points = np.linalg.norm(self.points[self.valid] - self.centre, axis=-1)
        cameras = np.linalg.norm(self.camera_to_world[:, :3, 3] - self.centre, axis=-1)
        return float(max(np.quantile(points, 0.9), cameras.max()))


def prepare_scene(scene: Scene4D) -> PreparedScene:
    """Everything that is drawn of a scene.

    Rewards that the scene does not bring are computed here, with the default camera-motion and the robust
    reprojection reward.

    Raises:
        ValueError: if a camera is not finite, or no view sees a surface.
    """
    geometry = scene.geometry.detach().to("cpu", torch.float32)
    _require_drawable(geometry, scene.label)
    unit = median_depth(geometry.depth_z)
    geometry = _rescaled(geometry, unit)
    reward = ReprojectionReward.robust()
    static = _static(geometry, reward.flow_threshold)
    points = geometry.world_points[0]
    surface = valid_depth(geometry.depth_z[0]) & points.isfinite().all(dim=-1)
    middle = geometry.camera_to_world[0, :, :3, 3].mean(dim=0)
    near = (points - middle).nan_to_num(posinf=math.inf, neginf=-math.inf).norm(dim=-1) <= FARTHEST
    valid = surface & near
    if not bool(valid.any()):
        raise ValueError(
            f"{_name(scene.label)} has no point within {FARTHEST:g} median depths of its cameras"
        )
    return PreparedScene(
        label=scene.label,
        prompt=scene.prompt,
        times=scene.times,
        scale=float(unit),
        points=torch.where(valid[..., None], points, 0.0).numpy(),
        colours=scene.colours.cpu().numpy(),
        valid=valid.numpy(),
        static=static.numpy() if static is not None else np.ones(valid.shape, dtype=np.bool_),
        knows_motion=static is not None,
        confidence=_ranks(geometry.confidence[0], valid) if geometry.confidence is not None else None,
        error=reward.error_map(geometry)[0].numpy(),
        camera_to_world=geometry.camera_to_world[0].numpy(),
        intrinsics=geometry.intrinsics[0].numpy(),
        acceleration=_acceleration(geometry.camera_to_world[0]).numpy(),
        arrows=_arrows(geometry, static, valid).numpy(),
        rewards=_rewards(scene, geometry),
        too_far=int((surface & ~near).sum()),
    )


def _name(label: str) -> str:
    return f"the scene {label!r}" if label else "the scene"


def _require_drawable(geometry: SceneGeometry, label: str) -> None:
    cameras = torch.cat([geometry.camera_to_world[0].flatten(1), geometry.intrinsics[0].flatten(1)], dim=1)
    focal = geometry.intrinsics[0][:, [0, 1], [0, 1]]
    broken = ~(cameras.isfinite().all(dim=1) & (focal > 0).all(dim=1))
    if bool(broken.any()):
        raise ValueError(
            f"{_name(label)} cannot be drawn: the camera of view {int(broken.nonzero()[0])} is not finite "
            "or has no positive focal length; leave that view out (SceneGeometry.select)"
        )
    if not bool(valid_depth(geometry.depth_z).any()):
        raise ValueError(
            f"{_name(label)} cannot be drawn: no view sees a surface (depth_z is nowhere positive)"
        )


def _rescaled(geometry: SceneGeometry, unit: Tensor) -> SceneGeometry:
    """The scene in units of `unit` [1]."""
    tensors = geometry.as_dict()
    cameras = tensors["camera_to_world"].clone()
    cameras[..., :3, 3] /= unit
    lengths = ("depth_z", "world_points", "scene_flow_from_ref")
    scaled = {name: tensors[name] / unit for name in lengths if name in tensors}
    return SceneGeometry.from_dict(tensors | scaled | {"camera_to_world": cameras})


def _static(geometry: SceneGeometry, threshold: float) -> Tensor | None:
    """[T, H, W] bool, or None if nothing is known."""
    if geometry.static_mask is not None:
        return geometry.static_mask[0]
    if geometry.scene_flow_from_ref is not None:
        return static_mask_from_flow(geometry, threshold)[0]
    return None


def _ranks(confidence: Tensor, valid: Tensor) -> FloatArray:
    """Shares [T, H, W] of the valid points that are no surer; equal confidences share the greatest, and one
    that is NaN is the least."""
    values = confidence.nan_to_num(nan=-math.inf)
    ordered = values[valid].sort().values
    ranks: FloatArray = (torch.searchsorted(ordered, values, right=True) / len(ordered)).float().numpy()
    return ranks


def _acceleration(camera_to_world: Tensor) -> Tensor:
    """See `PreparedScene.acceleration`; cameras [T, 4, 4] in median depths."""
    if len(camera_to_world) < 3:
        return torch.zeros(len(camera_to_world))
    v = linear_velocity(camera_to_world)
    speed = safe_norm(v)
    inner = safe_norm(difference(v)) / (speed[1:] + speed[:-1] + CameraMotionReward().translation_floor)
    return torch.cat([inner[:1], inner, inner[-1:]])


def _arrows(geometry: SceneGeometry, static: Tensor | None, valid: Tensor) -> Tensor:
    """Positions [A, T, 3] of moving points on a grid of view 0."""
    flow = geometry.scene_flow_from_ref
    if flow is None or static is None:
        return torch.zeros(0, geometry.num_views, 3)
    paths = geometry.world_points[0, 0] + flow[0]
    finite = paths.isfinite().all(dim=-1).all(dim=0) & (paths.norm(dim=-1) <= 2 * FARTHEST).all(dim=0)
    moving = valid[0] & ~static[0] & finite
    stride = max(1, math.ceil(math.sqrt(int(moving.sum()) / MAX_ARROWS)))
    grid = torch.zeros_like(moving)
    grid[stride // 2 :: stride, stride // 2 :: stride] = True
    # Rows and columns of the grid may hold a few more than their share.
    chosen = (moving & grid).flatten().nonzero()[:, 0][: 2 * MAX_ARROWS]
    return paths.flatten(1, 2)[:, chosen].transpose(0, 1).contiguous()


def _rewards(scene: Scene4D, geometry: SceneGeometry) -> list[tuple[str, float]]:
    values = {name: reward.value for name, reward in scene.rewards.items()}
    if not values:
        if geometry.num_views >= MIN_VIEWS["acceleration"]:
            values["camera_motion"] = float(CameraMotionReward()(geometry).value)
        values["reprojection"] = float(ReprojectionReward.robust()(geometry).value)
    return [(name.replace("_", " ").capitalize(), value) for name, value in values.items()]
