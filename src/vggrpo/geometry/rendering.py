"""Splatting a point cloud into many views at once with a z-buffer.

A point lands on the pixel whose centre is nearest; of the points on one pixel the nearest to the camera
wins, and of equally near ones the first. Winners are picked without gradient; their depth and position
carry it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.geometry._checks import require_countable, require_shape, require_trailing
from vggrpo.geometry.cameras import MIN_PROJECTION_DEPTH, project

EMPTY = torch.iinfo(torch.int64).max
INDEX_BITS = 32


@dataclass(frozen=True, eq=False)
class PointRender:
    """The winning point of every pixel; where `covered` is False, 0 and a `point_index` of -1."""

    depth: Tensor
    """[B, V, H, W], depth_z of the winner in that view; differentiable in points and cameras."""
    uv: Tensor
    """[B, V, H, W, 2], where the winner projects to, within half a pixel of the centre; differentiable."""
    covered: Tensor
    """[B, V, H, W] bool."""
    point_index: Tensor
    """[B, V, H, W] int64, into the N points."""


def render_depth(
    points: Tensor,
    keep: Tensor | None,
    camera_to_world: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    *,
    hidden_view: Tensor | None = None,
    max_elements: int | None = None,
) -> PointRender:
    """Renders N points into V views of each of B scenes.

    Args:
        points: [B, N, 3], world coordinates; a point with a non-finite coordinate is never drawn.
        keep: [B, N] or [B, V, N] bool, the points to draw (in each view); None draws all.
        camera_to_world: [B, V, 4, 4].
        intrinsics: [B, V, 3, 3], pixels of the H x W raster.
        height: H.
        width: W.
        hidden_view: [N] int64, the one view in which a point is not drawn (its own view, to leave it out
            there); numbers outside 0..V-1 hide nothing.
        max_elements: how many of the B * V * N projections are held at once, at roughly 100 bytes each; the
            points are processed in chunks of this size. None: what fits a CPU's caches, or 400 MB of a GPU.
            The result does not depend on it.

    Raises:
        ValueError: if a shape or dtype does not fit.
    """
    keep = _checked_keep(points, keep, camera_to_world, intrinsics, hidden_view, height, width)
    batch, views = camera_to_world.shape[:2]
    if max_elements is not None and max_elements < 1:
        raise ValueError(f"max_elements is {max_elements}, but at least 1 was expected")
    if max_elements is None:
        max_elements = 2**18 if points.device.type == "cpu" else 2**22
    with torch.no_grad():
        nearest = _nearest_keys(
            points, keep, camera_to_world, intrinsics, height, width, hidden_view, max_elements
        )
        covered = nearest != EMPTY
        index = torch.where(covered, nearest & (2**INDEX_BITS - 1), 0)
    # All views at once: a gather from expanded points would have a gradient of B * V * N points.
    winners = points.gather(1, index.flatten(1)[..., None].expand(-1, -1, 3)).unflatten(1, (views, -1))
    # An empty pixel's stand-in, point 0, may be non-finite and would turn zero gradients into NaN.
    winners = torch.where(covered[..., None], winners, 0.0)
    uv, depth = project(winners, intrinsics, camera_to_world)
    raster = (batch, views, height, width)
    return PointRender(
        depth=torch.where(covered, depth, 0.0).reshape(raster),
        uv=torch.where(covered[..., None], uv, 0.0).reshape(*raster, 2),
        covered=covered.reshape(raster),
        point_index=torch.where(covered, index, -1).reshape(raster),
    )


def _nearest_keys(
    points: Tensor,
    keep: Tensor,
    camera_to_world: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    hidden_view: Tensor | None,
    max_elements: int,
) -> Tensor:
    """The least (depth, point number) of every pixel as one integer, [B, V, H * W]; EMPTY where none fell.

    The bits of a positive float32 are ordered like the number: with depth in the upper half and the point's
    number in the lower, one scatter-minimum finds both the least depth and the point that has it.
    """
    batch, views = camera_to_world.shape[:2]
    num_pixels = height * width
    nearest = points.new_full((batch * views * num_pixels,), EMPTY, dtype=torch.int64)
    first_pixel = torch.arange(batch * views, device=points.device).reshape(batch, views, 1) * num_pixels
    view_number = torch.arange(views, device=points.device)[:, None]
    origin, rows = _projection_rows(camera_to_world, intrinsics)
    chunk = max(1, max_elements // (batch * views))
    for start in range(0, points.shape[1], chunk):
        part = slice(start, min(start + chunk, points.shape[1]))
        number = torch.arange(part.start, part.stop, device=points.device)
        column, row, z = _nearest_pixels(points[:, part] - origin, rows)
        drawn = keep[..., part] & (z > MIN_PROJECTION_DEPTH) & torch.isfinite(z)
        drawn &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
        if hidden_view is not None:
            drawn &= hidden_view[part] != view_number
        # What is not drawn is scattered too, as EMPTY, but over all pixels: at one they would queue up.
        pixel = torch.where(drawn, row.mul_(width).add_(column), number % num_pixels).long()
        key = torch.where(drawn, (z.float().view(torch.int32).long() << INDEX_BITS) | number, EMPTY)
        nearest.scatter_reduce_(0, (pixel + first_pixel).flatten(), key.flatten(), "amin", include_self=True)
    return nearest.reshape(batch, views, num_pixels)


def _projection_rows(camera_to_world: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """An origin [B, 1, 3] among the cameras, and K [R^T | R^T (origin - centre)] as [B, V, 3, 4].

    Composed in float64 and relative to the origin, so that scenes far from the world's zero keep their
    pixels.
    """
    pose, K = camera_to_world.double(), intrinsics.double()
    origin = pose[:, :1, :3, 3]
    rotation = pose[..., :3, :3].mT
    offset = rotation @ (origin - pose[..., :3, 3])[..., None]
    rows = K @ torch.cat([rotation, offset], dim=-1)
    return origin.to(camera_to_world.dtype), rows.to(camera_to_world.dtype)


def _nearest_pixels(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Column and row (whole numbers) and depth [B, V, n] of points [B, n, 3] under projections [B, V, 3, 4].

    Written with fused multiply-adds: matrix products may run in TF32, which misses pixels.
    """
    x, y, z = (coordinate.contiguous()[:, None] for coordinate in points.unbind(-1))
    P = rows[..., None]
    u, v, depth = (
        (P[:, :, i, 0] * x + P[:, :, i, 3]).addcmul_(P[:, :, i, 1], y).addcmul_(P[:, :, i, 2], z)
        for i in range(3)
    )
    return u.div_(depth).add_(0.5).floor_(), v.div_(depth).add_(0.5).floor_(), depth


def _checked_keep(
    points: Tensor,
    keep: Tensor | None,
    camera_to_world: Tensor,
    intrinsics: Tensor,
    hidden_view: Tensor | None,
    height: int,
    width: int,
) -> Tensor:
    """`keep` as [B, 1 or V, N] bool, after checking everything that came."""
    require_trailing("points", points, (3,))
    require_countable("points", points)
    require_trailing("camera_to_world", camera_to_world, (4, 4))
    if points.ndim != 3 or camera_to_world.ndim != 4:
        raise ValueError(
            f"points has shape {list(points.shape)} and camera_to_world {list(camera_to_world.shape)}, "
            "but [B, N, 3] and [B, V, 4, 4] were expected"
        )
    batch, number = points.shape[:2]
    views = camera_to_world.shape[1]
    require_shape("camera_to_world", camera_to_world, (batch, views, 4, 4), "[B, V, 4, 4]")
    require_shape("intrinsics", intrinsics, (batch, views, 3, 3), "[B, V, 3, 3]")
    if not 0 < number < 2**INDEX_BITS:
        raise ValueError(f"points holds {number} points per scene, but 1 to 2^{INDEX_BITS} - 1 were expected")
    if height < 1 or width < 1:
        raise ValueError(f"height x width is {height} x {width}, but at least 1 x 1 was expected")
    if hidden_view is not None:
        require_shape("hidden_view", hidden_view, (number,), "[N]")
    if keep is None:
        return torch.ones(1, 1, number, dtype=torch.bool, device=points.device)
    if keep.dtype != torch.bool:
        raise ValueError(f"keep has dtype {keep.dtype}, but torch.bool was expected")
    if keep.ndim == 3:
        require_shape("keep", keep, (batch, views, number), "[B, V, N]")
        return keep
    require_shape("keep", keep, (batch, number), "[B, N]")
    return keep[:, None]
