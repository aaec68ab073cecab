"""A clip's cameras and depth by a geometry model: how steadily the camera goes, how far, and whether depths
and cameras agree with each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from vggrpo.backbones import GeometryBackbone, load_geometry_backbone
from vggrpo.backbones.geometry_loading import locate_weights
from vggrpo.config.models import resolve_model
from vggrpo.evaluation.heldout import camera_motion_amount
from vggrpo.evaluation.videos.base import Clip, Measured, ModelMetric, Video
from vggrpo.geometry import SceneGeometry, masked_mean, median_depth, project, valid_depth
from vggrpo.io import file_sha256
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.rewards.base import usable_samples

LEAST_VIEWS = 3
GEOMETRY_VALUES = (
    "camera_smoothness",
    "reprojection_error",
    "mvcs",
    "camera_path",
    "camera_extent",
    "camera_turn",
)


@dataclass(frozen=True)
class GeometryViews:
    """The views that the geometry model sees: every `stride`-th frame (further apart if they were more than
    `most`), shrunk to `side`, both sides multiples of `patch_size`. Returns uint8 [V, h, w, 3]."""

    stride: int
    most: int
    side: int
    patch_size: int

    def stride_of(self, num_frames: int) -> int:
        """Frames from one view to the next in a clip of so many frames."""
        return max(self.stride, -(-(num_frames - 1) // (self.most - 1)))

    def __call__(self, video: Video, clip: Clip) -> NDArray[np.uint8]:
        """Raises ValueError if the clip has too few frames."""
        count, height, width, _ = video.frames.shape
        stride = self.stride_of(count)
        views = video.frames[::stride]
        if len(views) < LEAST_VIEWS:
            raise ValueError(
                f"{count} frames give {len(views)} views, but a camera path needs {LEAST_VIEWS}: at least "
                f"{(LEAST_VIEWS - 1) * stride + 1} frames"
            )
        scale = min(1.0, self.side / max(height, width)) / self.patch_size
        h, w = (max(round(length * scale), 1) * self.patch_size for length in (height, width))
        return np.stack([cv2.resize(view, (w, h), interpolation=cv2.INTER_AREA) for view in views])


@dataclass(frozen=True, eq=False)
class GeometryMetric(ModelMetric):
    """What a geometry backbone says about a clip. Made by `open_geometry`.

    Values: `camera_smoothness` (the camera-motion reward), `reprojection_error` (of the robust reprojection
    reward), `mvcs`, and the camera's travel `camera_path`, `camera_extent` and `camera_turn`.
    """

    model: str
    weights: str
    """SHA-256 of the weight file."""
    backbone: GeometryBackbone
    device: torch.device
    views: GeometryViews
    batch_size: int = 1

    name = "geometry"
    metrics = GEOMETRY_VALUES

    def settings(self) -> Mapping[str, Any]:
        """See the class."""
        views = self.views
        return {
            "model": self.model,
            "weights": self.weights,
            "stride": views.stride,
            "views": views.most,
            "side": views.side,
        }

    @property
    def prepare(self) -> GeometryViews:
        """The clip's views."""
        return self.views

    def open(self) -> None:
        """Moves the model to its device."""
        self.backbone.to(self.device).eval()

    @torch.no_grad()
    def compute(self, prepared: NDArray[np.uint8], clips: Sequence[Clip]) -> list[Measured]:
        """Views [B, V, h, w, 3] to the values of B clips."""
        scene = self.backbone(torch.from_numpy(prepared).to(self.device).float() / 255)
        values = scene_values(scene)
        usable = usable_samples(scene).tolist()
        measured = []
        for place, whole in enumerate(usable):
            numbers = {name: float(column[place]) for name, column in values.items()}
            notes = [f"{self.model} predicts no finite geometry with a surface"] if not whole else []
            if whole and not np.isfinite(numbers["reprojection_error"]):
                notes.append("no view shares enough of its surface with the others for a reprojection error")
            if whole and not np.isfinite(numbers["mvcs"]):
                notes.append("no view's points fall into the next view, so there is no mvcs")
            measured.append(Measured(numbers, tuple(notes)))
        return measured


def open_geometry(
    name: str, device: torch.device, *, stride: int = 4, views: int = 21, side: int = 518, batch_size: int = 1
) -> GeometryMetric:
    """The metric of a geometry model, by name, folder, weight file or repository; reads its weights.

    Raises:
        ConfigError, FileNotFoundError, CorruptFileError: if there is no such model; see
            `load_geometry_backbone`.
    """
    weights: Path = locate_weights(resolve_model(name, "geometry"))
    backbone = load_geometry_backbone(name)
    sampling = GeometryViews(stride, views, side, backbone.patch_size)
    return GeometryMetric(name, file_sha256(weights), backbone, device, sampling, batch_size)


def scene_values(scene: SceneGeometry) -> dict[str, Tensor]:
    """The values [B] of scenes, NaN where a scene has none."""
    smoothness = CameraMotionReward()(scene)
    consistency = ReprojectionReward.robust()(scene)
    error = consistency.parts["reprojection_error"]
    values = {
        "camera_smoothness": smoothness.value,
        "reprojection_error": torch.where(consistency.valid, error, torch.nan),
        "mvcs": multi_view_consistency(scene),
        **camera_motion_amount(scene),
    }
    usable = usable_samples(scene)
    return {name: torch.where(usable, column.float(), torch.nan).cpu() for name, column in values.items()}


def multi_view_consistency(scene: SceneGeometry) -> Tensor:
    """MVCS = exp( - mean over pairs of mean_p (z_{i -> i+1}(p) - D_{i+1}(pi(p)))^2 ), [B] in (0, 1].

    A pixel p of view i, lifted by its depth, has depth z in view i + 1, where it projects to pi(p); D is
    that view's own depth, interpolated bilinearly. Points that leave the view, lie behind it or meet pixels
    without depth do not count. Depths are in units of the clip's median depth, unlike VideoGPA's, which are
    in the model's own. NaN if no pair of views overlaps.
    """
    b, t, h, w = scene.depth_z.shape
    unit = median_depth(scene.depth_z)[:, None, None, None]
    depth, valid = scene.depth_z / unit, valid_depth(scene.depth_z)
    points = scene.world_points[:, :-1].reshape(b, t - 1, h * w, 3)
    uv, z = project(points, scene.intrinsics[:, 1:], scene.camera_to_world[:, 1:])
    z = z.reshape(b, t - 1, h, w) / unit
    last = uv.new_tensor([w - 1, h - 1]).clamp(min=1)
    grid = (2 * uv / last - 1).reshape(b * (t - 1), h, w, 2)
    following = torch.stack([depth[:, 1:], valid[:, 1:].to(depth.dtype)], dim=2).flatten(0, 1)
    sampled = grid_sample(following, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    observed, known = sampled.unflatten(0, (b, t - 1)).unbind(2)
    kept = valid[:, :-1] & (z > 0) & (known > 1 - 1e-4)
    square = (torch.where(kept, z, 0) - torch.where(kept, observed, 0)) ** 2
    pair_error = masked_mean(square, kept, dim=(2, 3))
    overlaps = kept.flatten(2).any(2)
    error = masked_mean(pair_error, overlaps, dim=1)
    return torch.where(overlaps.any(1), torch.exp(-error), torch.nan)
