"""Which pixels of which view show something that moves, from scene flow that is anchored to view 0.

The flow says nothing about surfaces that view 0 does not see: a moving object that enters later stays
unmarked.
"""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from vggrpo.geometry._checks import require_countable, require_non_negative
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
    view's own depth and marked, and the marks are widened to close the gaps between them, but not onto
    surfaces of another depth.

    Args:
        scene: with `scene_flow_from_ref`.
        threshold: displacement in scene units, a number or [B].
        dilate: radius in pixels by which marks are widened.
        depth_tolerance: a moved point counts as hidden in view i, and leaves no mark, if it lies behind the
            view's own surface by more than this fraction of its depth. Marks are widened onto pixels whose
            depth differs by no more than that from the depths of the marks around.

    Raises:
        ValueError: if the scene has no flow or is of half precision, or a number is negative.
    """
    flow = scene.scene_flow_from_ref
    if flow is None:
        raise ValueError("scene has no scene_flow_from_ref, from which a static mask could be derived")
    require_countable("scene", scene.depth_z)
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
        marks = moving.reshape(b, 1, h * w) & inside & ~hidden
        nearest, farthest = _depths_of_marks(pixel, marks, z)
        nearest, farthest = nearest.reshape(b, t, h, w), farthest.reshape(b, t, h, w)
        nearest[:, 0] = torch.where(moving, scene.depth_z[:, 0], nearest[:, 0])
        farthest[:, 0] = torch.where(moving, scene.depth_z[:, 0], farthest[:, 0])
        least = -_greatest_around(-nearest, dilate) * (1 - depth_tolerance)
        greatest = _greatest_around(farthest, dilate) * (1 + depth_tolerance)
        same_surface = (scene.depth_z >= least) & (scene.depth_z <= greatest)
        return ~(nearest.isfinite() | same_surface)


def _depths_of_marks(pixel: Tensor, marks: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest depth of the marks on each pixel, [B, T, H*W]; inf and -inf without marks.

    `pixel` numbers, `marks` and depths `z` of the moved points are [B, T, H*W].
    """
    none = torch.full_like(z, torch.inf)
    nearest = none.scatter_reduce(2, pixel, torch.where(marks, z, none), "amin")
    farthest = (-none).scatter_reduce(2, pixel, torch.where(marks, z, -none), "amax")
    return nearest, farthest


def _greatest_around(images: Tensor, radius: int) -> Tensor:
    """The greatest value of images [B, T, H, W] within `radius` pixels of each."""
    return max_pool2d(images, kernel_size=2 * radius + 1, stride=1, padding=radius)


def with_static_mask(
    scene: SceneGeometry, threshold: float | Tensor, *, dilate: int = 1, depth_tolerance: float = 0.05
) -> SceneGeometry:
    """The scene with `static_mask` derived from its flow; see `static_mask_from_flow`."""
    mask = static_mask_from_flow(scene, threshold, dilate=dilate, depth_tolerance=depth_tolerance)
    return scene.with_static_mask(mask)
