"""Camera paths to steer by: an orbit, a dolly, a truck, a pan, and paths resampled to a number of views.

A path is camera_to_world [T, 4, 4] whose first camera is the world. Lengths have the unit of `amount`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vggrpo.geometry._checks import require_trailing
from vggrpo.geometry.poses import se3_from_rt
from vggrpo.geometry.rotations import relative_rotation, so3_exp, so3_log


def orbit(num_views: int, degrees: float, radius: float = 1.0) -> Tensor:
    """Around the point `radius` ahead, which stays in the middle; positive angles go to the right."""
    angle = math.radians(degrees) * _times(num_views)
    zero = torch.zeros_like(angle)
    centres = torch.stack([radius * angle.sin(), zero, radius * (1.0 - angle.cos())], dim=-1)
    return se3_from_rt(_turned(-angle), centres)


def dolly(num_views: int, distance: float) -> Tensor:
    """Straight ahead; negative distances go back."""
    return _straight(num_views, (0.0, 0.0, distance))


def truck(num_views: int, distance: float) -> Tensor:
    """Sideways, looking ahead; positive distances go to the right."""
    return _straight(num_views, (distance, 0.0, 0.0))


def pan(num_views: int, degrees: float) -> Tensor:
    """Turning on the spot; positive angles turn to the right."""
    angle = math.radians(degrees) * _times(num_views)
    return se3_from_rt(_turned(angle), torch.zeros(num_views, 3))


CAMERA_PATHS: dict[str, Callable[[int, float], Tensor]] = {
    "orbit": orbit,
    "dolly": dolly,
    "truck": truck,
    "pan": pan,
}
"""(number of views, amount) to a path, by name. Orbit and pan are in degrees."""


def resample_path(camera_to_world: Tensor, num_views: int) -> Tensor:
    """A path [N, 4, 4] at `num_views` even times from its first to its last camera, [T, 4, 4].

    Between two cameras the centre moves straight and the rotation takes the shortest way at constant speed.

    Raises:
        ValueError: if the path has fewer than two cameras.
    """
    require_trailing("camera_to_world", camera_to_world, (4, 4))
    if camera_to_world.ndim != 3 or len(camera_to_world) < 2:
        raise ValueError(
            f"camera_to_world has shape {list(camera_to_world.shape)}, expected [N, 4, 4] with N >= 2 cameras"
        )
    place = torch.linspace(
        0, len(camera_to_world) - 1, num_views, dtype=camera_to_world.dtype, device=camera_to_world.device
    )
    before = place.floor().long().clamp(max=len(camera_to_world) - 2)
    share = (place - before)[:, None]
    first, second = camera_to_world[before], camera_to_world[before + 1]
    turn = so3_log(relative_rotation(first[:, :3, :3], second[:, :3, :3]))
    rotation = first[:, :3, :3] @ so3_exp(share * turn)
    return se3_from_rt(rotation, torch.lerp(first[:, :3, 3], second[:, :3, 3], share))


def _times(num_views: int) -> Tensor:
    """[T] from 0 to 1."""
    if num_views < 2:
        raise ValueError(f"num_views is {num_views}, but a path has at least 2")
    return torch.linspace(0.0, 1.0, num_views)


def _turned(angle: Tensor) -> Tensor:
    """Rotations [T, 3, 3] about the vertical; positive angles [T] turn the view to the right."""
    zero = torch.zeros_like(angle)
    return so3_exp(torch.stack([zero, angle, zero], dim=-1))


def _straight(num_views: int, end: tuple[float, float, float]) -> Tensor:
    centres = _times(num_views)[:, None] * torch.tensor(end)
    return se3_from_rt(torch.eye(3).expand(num_views, 3, 3), centres)
