"""Rendered against observed depth: where the two can be compared, and what the observed depth is there."""

import torch
from torch import Tensor

from vggrpo.geometry import PointRender

NEGLIGIBLE_WEIGHT = 1e-3
"""Bilinear weight at which a pixel is no longer part of a comparison."""
ROUNDING = 1e-5
"""Relative difference that float32 may make between equal depths."""


def observed_at_pixels(render: PointRender, depth_z: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """The view's own depth D_i at the pixel that a point landed on.

    Args:
        render: of B scenes into their V views.
        depth_z: [B, V, H, W].
        usable: [B, V, H, W] bool, pixels whose own depth is valid and static.

    Returns:
        D_i [B, V, H, W] and Omega_i [B, V, H, W] bool, the pixels that received a point and are usable.
    """
    return depth_z, render.covered & usable


def observed_at_points(
    render: PointRender, depth_z: Tensor, usable: Tensor, edge_tolerance: float | None
) -> tuple[Tensor, Tensor]:
    """The view's own depth D_i(pi_i(X_j)) between its pixels, where winning point j projects to.

    Interpolates 1 / depth bilinearly over the four pixels around the point: that is affine over the image
    of a plane, so planes are exact, which interpolated depth is not.

    If the four depths spread by more than the fraction `edge_tolerance` (None: never), an edge runs between
    them, and where it runs is unknown. A point between their depths then fits and says nothing, and is left
    out; one in front of or behind them all is compared with the nearest of them. So noise in the depth, which
    looks like edges everywhere, cannot excuse itself.

    Args and returns as in `observed_at_pixels`; Omega_i holds the winners whose four pixels exist and are
    usable.

    Raises:
        ValueError: if there are fewer than 2 x 2 pixels.
    """
    h, w = depth_z.shape[-2:]
    if h < 2 or w < 2:
        raise ValueError(f"depth_z is {h} x {w} pixels, but comparing between pixels needs at least 2 x 2")
    index, weights, matters = _four_pixels(render.uv, h, w)
    all_usable = (_at(usable, index) | ~matters).all(dim=-1)
    omega = render.covered & matters.any(dim=-1) & all_usable
    depths = torch.where(matters & omega[..., None], _at(depth_z, index), 1.0)
    observed = 1 / torch.where(omega[..., None], weights / depths, 0.25).sum(dim=-1)
    if edge_tolerance is None:
        return observed, omega
    nearest = torch.where(matters, depths, torch.inf).amin(dim=-1)
    farthest = torch.where(matters, depths, 0.0).amax(dim=-1)
    on_edge = farthest > nearest * (1 + edge_tolerance)
    between = (render.depth >= nearest * (1 - ROUNDING)) & (render.depth <= farthest * (1 + ROUNDING))
    outer = torch.where(render.depth < nearest, nearest, farthest)
    return torch.where(on_edge, outer, observed), omega & ~(on_edge & between)


def depth_error(rendered: Tensor, observed: Tensor, occlusion_tolerance: float | None) -> Tensor:
    """|rendered - observed|, saturating where the point lies far behind the observed surface.

    A point far behind may be hidden by something that no other view has seen, so how far behind it lies says
    nothing; but leaving it out would let a view whose depth is too small lose all of its comparisons
    instead of failing them. Hence the error is at most `occlusion_tolerance` * observed there (None: not
    limited). Points in front of the surface would have been seen: their error is never limited.
    """
    behind = rendered - observed
    if occlusion_tolerance is None:
        return behind.abs()
    return torch.where(behind > 0, torch.minimum(behind, occlusion_tolerance * observed), -behind)


def _four_pixels(uv: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The four pixels around positions [..., 2]: flat numbers, bilinear weights (sum 1) and which matter,
    [..., 4].

    Pixels of negligible weight do not matter: under a camera at rest points fall on pixel centres, and
    rounding must not decide which neighbours they are compared with. At positions outside the raster none
    matters.
    """
    u, v = uv.unbind(-1)
    left = u.detach().floor().clamp(0, width - 2)
    top = v.detach().floor().clamp(0, height - 2)
    first = (top * width + left).long()
    index = torch.stack([first, first + 1, first + width, first + width + 1], dim=-1)
    a, b = u - left, v - top
    weights = torch.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b], dim=-1)
    inside = (torch.maximum((a - 0.5).abs(), (b - 0.5).abs()) < 0.5 + NEGLIGIBLE_WEIGHT)[..., None]
    matters = inside & (weights > NEGLIGIBLE_WEIGHT)
    weights = torch.where(matters, weights, 0.0)
    total = torch.where(inside, weights.sum(dim=-1, keepdim=True), 1.0)
    return index, weights / total, matters


def _at(images: Tensor, index: Tensor) -> Tensor:
    """Values of images [B, V, H, W] at flat pixel numbers [B, V, ...]."""
    return images.flatten(2).gather(2, index.flatten(2)).reshape(index.shape)
