"""Rigid transforms as 4 x 4 matrices that multiply column vectors."""

import torch
from torch import Tensor

from vggrpo.geometry._checks import require_trailing


def se3_from_rt(rotation: Tensor, translation: Tensor) -> Tensor:
    """Rotation [..., 3, 3] and translation [..., 3] to a transform [..., 4, 4]."""
    require_trailing("rotation", rotation, (3, 3))
    require_trailing("translation", translation, (3,))
    batch = torch.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1])
    top = torch.cat([rotation.expand(*batch, 3, 3), translation.expand(*batch, 3)[..., None]], dim=-1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*batch, 1, 4)
    return torch.cat([top, bottom], dim=-2)


def invert_se3(transform: Tensor) -> Tensor:
    """Inverse of a rigid transform [..., 4, 4]: rotation R^T, translation -R^T t."""
    require_trailing("transform", transform, (4, 4))
    rotation = transform[..., :3, :3].mT
    return se3_from_rt(rotation, -rotate(rotation, transform[..., :3, 3]))


def relative_pose(camera_to_world_a: Tensor, camera_to_world_b: Tensor) -> Tensor:
    """Transform [..., 4, 4] from b's camera coordinates to a's: inverse(a) @ b."""
    return invert_se3(camera_to_world_a) @ camera_to_world_b


def rotate(rotation: Tensor, vectors: Tensor) -> Tensor:
    """R x for rotations [*batch, 3, 3] and vectors [*batch, *grid, 3]; batch dimensions broadcast.

    Written out column by column, so that neither autocast nor TF32 can lower its precision.
    """
    require_trailing("rotation", rotation, (3, 3))
    require_trailing("vectors", vectors, (3,))
    R = expand_over_grid(rotation, vectors.ndim - 1, 2)
    return vectors[..., 0:1] * R[..., 0] + vectors[..., 1:2] * R[..., 1] + vectors[..., 2:3] * R[..., 2]


def transform_points(transform: Tensor, points: Tensor) -> Tensor:
    """R x + t for transforms [*batch, 4, 4] and points [*batch, *grid, 3]; batch dimensions broadcast."""
    require_trailing("transform", transform, (4, 4))
    translation = expand_over_grid(transform[..., :3, 3], points.ndim - 1, 1)
    return rotate(transform[..., :3, :3], points) + translation


def expand_over_grid(matrix: Tensor, batch_and_grid_ndim: int, matrix_ndim: int) -> Tensor:
    """Inserts singleton dimensions before the last `matrix_ndim`, so that `matrix` broadcasts over a grid."""
    missing = batch_and_grid_ndim - (matrix.ndim - matrix_ndim)
    if missing < 0:
        raise ValueError(
            f"the transform or intrinsics of shape {list(matrix.shape)} have more batch dimensions than the "
            f"{batch_and_grid_ndim} batch and grid dimensions of the points; unsqueeze the points"
        )
    batch = matrix.shape[: matrix.ndim - matrix_ndim]
    return matrix.reshape(*batch, *([1] * missing), *matrix.shape[matrix.ndim - matrix_ndim :])
