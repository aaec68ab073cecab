"""Static masks that are derived from scene flow, against the world's own knowledge of what moves."""

import pytest
import torch
from torch import Tensor

from vggrpo.geometry import invert_se3, project, static_mask_from_flow
from vggrpo.world import SceneSpec, WorldClips, render_clips, sample_scene
from vggrpo.world.paths import scene_motion

THRESHOLD = 0.1
"""Displacement in scene units that counts as moving: the recipes' value."""


@pytest.fixture(scope="module")
def specs() -> list[SceneSpec]:
    """A dozen scenes in which something moves."""
    return [spec for spec in (sample_scene("test", i) for i in range(60)) if spec.is_dynamic][:12]


@pytest.fixture(scope="module")
def clips(specs: list[SceneSpec]) -> WorldClips:
    return render_clips(specs, views="keys", supersample=1)


def seen_in_view_0(specs: list[SceneSpec], clips: WorldClips) -> Tensor:
    """Of each view's own pixels [B, T, H, W]: is their surface point visible in view 0?

    A point is carried back to time 0 with the object it lies on, by the object's exact poses, and looked for
    at the nearest pixel of view 0.
    """
    geometry, mask = clips.geometry, clips.object_mask
    motion = scene_motion(specs, 17).views(slice(None, None, 4))
    poses, to_scene = motion.object_to_scene, motion.camera_to_scene[:, :1, None]
    to_start = invert_se3(to_scene) @ poses[:, :1] @ invert_se3(poses) @ to_scene  # [B, T, O, 4, 4]
    surroundings = torch.eye(4).expand(*to_start.shape[:2], 1, 4, 4)
    carry = torch.cat([surroundings, to_start.float()], dim=2)
    index = mask.flatten(2)[..., None, None].expand(-1, -1, -1, 4, 4)
    transform = carry.gather(2, index).unflatten(2, mask.shape[2:])
    points = geometry.world_points
    start = (transform[..., :3, :3] @ points[..., None])[..., 0] + transform[..., :3, 3]

    uv, z = project(start, geometry.intrinsics[:, :1], geometry.camera_to_world[:, :1])
    column, row = uv.round().long().unbind(-1)
    height, width = mask.shape[2:]
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = torch.where(inside, row * width + column, 0).flatten(2)
    there = mask[:, :1].expand_as(mask).flatten(2).gather(2, pixel).view_as(mask)
    depth = geometry.depth_z[:, :1].expand_as(z).flatten(2).gather(2, pixel).view_as(z)
    return inside & (there == mask) & ((z - depth).abs() < 0.05 * depth)


def precision_and_recall(found: Tensor, true: Tensor, among: Tensor) -> tuple[float, float]:
    hits = float((found & true & among).sum())
    return hits / float((found & among).sum()), hits / float((true & among).sum())


def test_moving_pixels_whose_surface_view_0_sees_are_found(specs: list[SceneSpec], clips: WorldClips) -> None:
    dynamic, found = ~clips.geometry.static_mask, ~static_mask_from_flow(clips.geometry, THRESHOLD)
    among = seen_in_view_0(specs, clips)
    assert int((dynamic & among).sum()) > 5000
    precision, recall = precision_and_recall(found, dynamic, among)
    assert precision > 0.9
    assert recall > 0.9


def test_few_pixels_at_all_are_called_moving_that_are_not(clips: WorldClips) -> None:
    dynamic, found = ~clips.geometry.static_mask, ~static_mask_from_flow(clips.geometry, THRESHOLD)
    precision, _ = precision_and_recall(found, dynamic, torch.ones_like(found))
    assert precision > 0.9
