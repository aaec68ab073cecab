"""Two-view geometry: the matrices that relate the pixels of two cameras, and distances in pixels."""

import torch
from torch import Tensor

from vggrpo.geometry._checks import require_trailing
from vggrpo.geometry.poses import expand_over_grid, relative_pose
from vggrpo.geometry.rotations import skew


def essential_matrix(camera_to_world_a: Tensor, camera_to_world_b: Tensor) -> Tensor:
    """E = [t] R [..., 3, 3] with x_b^T E x_a = 0, where x_b = R x_a + t takes a's camera axes to b's.

    t is not normalised; cameras with a common centre have E = 0.
    """
    a_to_b = relative_pose(camera_to_world_b, camera_to_world_a)
    return skew(a_to_b[..., :3, 3]) @ a_to_b[..., :3, :3]


def fundamental_matrix(
    camera_to_world_a: Tensor, intrinsics_a: Tensor, camera_to_world_b: Tensor, intrinsics_b: Tensor
) -> Tensor:
    """F = K_b^-T E K_a^-1 [..., 3, 3] with (u_b, v_b, 1) F (u_a, v_a, 1)^T = 0 for images of one point."""
    require_trailing("intrinsics_a", intrinsics_a, (3, 3))
    require_trailing("intrinsics_b", intrinsics_b, (3, 3))
    essential = essential_matrix(camera_to_world_a, camera_to_world_b)
    return torch.linalg.inv(intrinsics_b).mT @ essential @ torch.linalg.inv(intrinsics_a)


def sampson_distance(uv_a: Tensor, uv_b: Tensor, fundamental: Tensor) -> Tensor:
    """First-order distance in pixels from a match to the nearest pair that fits F (Sampson, not squared).

    |x_b^T F x_a| / sqrt( (F x_a)_1^2 + (F x_a)_2^2 + (F^T x_b)_1^2 + (F^T x_b)_2^2 )

    Args:
        uv_a: [*batch, *grid, 2] pixels in a.
        uv_b: [*batch, *grid, 2] pixels in b.
        fundamental: F [*batch, 3, 3] from a to b.

    Returns:
        [*batch, *grid]; 0 where F has no epipolar line (a common centre).
    """
    residual, line_b, line_a = _residual_and_lines(uv_a, uv_b, fundamental)
    return residual.abs() / _guarded_sqrt(_normal_square(line_a) + _normal_square(line_b))


def symmetric_epipolar_distance(uv_a: Tensor, uv_b: Tensor, fundamental: Tensor) -> Tensor:
    """Mean distance in pixels of each point from the other's epipolar line; shapes as in Sampson's."""
    residual, line_b, line_a = _residual_and_lines(uv_a, uv_b, fundamental)
    inverse_a = 1 / _guarded_sqrt(_normal_square(line_a))
    inverse_b = 1 / _guarded_sqrt(_normal_square(line_b))
    return 0.5 * residual.abs() * (inverse_a + inverse_b)


def _residual_and_lines(uv_a: Tensor, uv_b: Tensor, fundamental: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x_b^T F x_a, the line F x_a in b and the line F^T x_b in a."""
    require_trailing("uv_a", uv_a, (2,))
    require_trailing("uv_b", uv_b, (2,))
    require_trailing("fundamental", fundamental, (3, 3))
    x_a = torch.cat([uv_a, torch.ones_like(uv_a[..., :1])], dim=-1)
    x_b = torch.cat([uv_b, torch.ones_like(uv_b[..., :1])], dim=-1)
    F = expand_over_grid(fundamental, x_a.ndim - 1, 2)
    line_b = (F @ x_a[..., None]).squeeze(-1)
    line_a = (F.mT @ x_b[..., None]).squeeze(-1)
    return (x_b * line_b).sum(dim=-1), line_b, line_a


def _normal_square(line: Tensor) -> Tensor:
    return line[..., 0] ** 2 + line[..., 1] ** 2


def _guarded_sqrt(square: Tensor) -> Tensor:
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()
