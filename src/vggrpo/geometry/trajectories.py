"""Camera paths: centres and orientations, and their differences from view to view.

Differences are per view step, not per second: T views give T - 1 velocities, T - 2 accelerations and T - 3
jerks.
"""

from torch import Tensor

from vggrpo.geometry._checks import require_trailing
from vggrpo.geometry.numerics import safe_norm
from vggrpo.geometry.rotations import relative_rotation, so3_log


def camera_centres(camera_to_world: Tensor) -> Tensor:
    """c_i, the camera centres in world coordinates: [..., T, 4, 4] -> [..., T, 3]."""
    require_trailing("camera_to_world", camera_to_world, (4, 4))
    return camera_to_world[..., :3, 3]


def linear_velocity(camera_to_world: Tensor) -> Tensor:
    """v_i = c_{i+1} - c_i in scene units per view step: [..., T, 4, 4] -> [..., T - 1, 3]."""
    return difference(camera_centres(camera_to_world))


def angular_velocity(camera_to_world: Tensor) -> Tensor:
    """w_i = log(R_i^T R_{i+1}) in radians per view step: [..., T, 4, 4] -> [..., T - 1, 3].

    In the axes of view i, hence independent of the choice of world coordinates.
    """
    require_trailing("camera_to_world", camera_to_world, (4, 4))
    rotation = camera_to_world[..., :3, :3]
    return so3_log(relative_rotation(rotation[..., :-1, :, :], rotation[..., 1:, :, :]))


def difference(series: Tensor, order: int = 1) -> Tensor:
    """The `order`-th forward difference along the views: [..., n, 3] -> [..., n - order, 3].

    Of a velocity, the first is the acceleration and the second the jerk.

    Raises:
        ValueError: if fewer than order + 1 entries are there.
    """
    require_trailing("series", series, (3,))
    if series.ndim < 2 or series.shape[-2] <= order:
        raise ValueError(
            f"series has shape {list(series.shape)}, but a difference of order {order} needs at least "
            f"{order + 1} entries along the views"
        )
    for _ in range(order):
        series = series[..., 1:, :] - series[..., :-1, :]
    return series


def path_length(camera_to_world: Tensor) -> Tensor:
    """Length of the camera's path in scene units: [..., T, 4, 4] -> [...]."""
    return safe_norm(linear_velocity(camera_to_world)).sum(dim=-1)
