"""Which pixels of which view show something that moves, from scene flow that is anchored to view 0.

The flow says nothing about surfaces that view 0 does not see: a moving object that enters later stays
unmarked.
"""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from vggrpo.geometry._checks import require_non_negative
from vggrpo.geometry.cameras import MIN_PROJECTION_DEPTH, project
from vggrpo.geometry.depth import valid_depth
from vggrpo.geometry.numerics import safe_norm
from vggrpo.geometry.scene import SceneGeometry


def static_mask_from_flow(
    scene: SceneGeometry, threshold: float | Tensor, *, dilate: int = 1, depth_tolerance: float = 0.05
) -> Tensor:
    """True on each view's own pixels [B, T, H, W] where the surface is static.

    A point of view 0 is dynamic if it is displaced by more than `threshold` in any view; it is then dynamic
    in every view, view 0 included. In view i its moved position X + F_i is projected, tested against the
    view's own depth and marked, and the marks are widened to close the gaps between them.

    Args:
        scene: with `scene_flow_from_ref`.
        threshold: displacement in scene units, a number or [B].
        dilate: radius in pixels by which marks are widened.
        depth_tolerance: a moved point counts as hidden in view i, and leaves no mark, if it lies behind the
            view's own surface by more than this fraction of its depth.

    Raises:
        ValueError: if the scene has no flow, or a number is negative.
    """
    flow = scene.scene_flow_from_ref
    if flow is None:
        raise ValueError("scene has no scene_flow_from_ref, from which a static mask could be derived")
    require_non_negative("dilate", dilate)
    require_non_negative("depth_tolerance", depth_tolerance)
    b, t, h, w = scene.depth_z.shape
    limit = torch.as_tensor(threshold, device=scene.device, dtype=scene.dtype)
    if limit.ndim > 1 or bool((limit < 0).any()):
        raise ValueError(f"threshold is {threshold}, but one number of at least 0, or [B], was expected")
    with torch.no_grad():
        moving = safe_norm(flow).amax(dim=1) > limit.reshape(-1, 1, 1)
        moving = moving & valid_depth(scene.depth_z[:, 0])
        moved = (scene.world_points[:, :1] + flow).reshape(b, t, h * w, 3)
        uv, z = project(moved, scene.intrinsics, scene.camera_to_world)
        column, row = (uv + 0.5).floor().unbind(-1)
        inside = (z > MIN_PROJECTION_DEPTH) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
        pixel = torch.where(inside, row * w + column, 0.0).long()
        own_depth = scene.depth_z.reshape(b, t, h * w).gather(2, pixel)
        hidden = valid_depth(own_depth) & (z > own_depth * (1 + depth_tolerance))
        marks = (moving.reshape(b, 1, h * w) & inside & ~hidden).to(scene.dtype)
        dynamic = torch.zeros_like(marks).scatter_reduce_(2, pixel, marks, "amax").reshape(b, t, h, w)
        dynamic[:, 0] = torch.maximum(dynamic[:, 0], moving.to(scene.dtype))
        return max_pool2d(dynamic, kernel_size=2 * dilate + 1, stride=1, padding=dilate) == 0


def with_static_mask(
    scene: SceneGeometry, threshold: float | Tensor, *, dilate: int = 1, depth_tolerance: float = 0.05
) -> SceneGeometry:
    """The scene with `static_mask` derived from its flow; see `static_mask_from_flow`."""
    mask = static_mask_from_flow(scene, threshold, dilate=dilate, depth_tolerance=depth_tolerance)
    return scene.with_static_mask(mask)
