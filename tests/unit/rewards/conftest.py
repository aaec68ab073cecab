"""An analytic scene for the rewards: a floor, a wall and an upright screen, by ray-plane intersection."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry, camera_rays, intrinsics_from_fov, rotate, se3_from_rt, so3_exp

HEIGHT, WIDTH = 24, 32
FLOOR_Y, WALL_Z, SCREEN_Z = 1.0, 6.0, 3.0
RoomScene = Callable[..., SceneGeometry]


def _room_scene(
    centres: Tensor, turns: Tensor | None = None, screen_x: float | Tensor = 0.0
) -> SceneGeometry:
    """Exact geometry of cameras at `centres` [T, 3], turned by rotation vectors `turns` [T, 3].

    The screen, of half width 0.6, stands in the middle at `screen_x`, a number or [T].
    """
    views = centres.shape[0]
    turns = torch.zeros_like(centres) if turns is None else turns
    pose = se3_from_rt(so3_exp(turns), centres)
    K = intrinsics_from_fov(torch.tensor(1.1, dtype=centres.dtype), HEIGHT, WIDTH).expand(views, 3, 3)
    directions = rotate(pose[:, :3, :3], camera_rays(K, HEIGHT, WIDTH))
    origin = centres[:, None, None]
    x, y, z = directions.unbind(-1)
    far = torch.full_like(x, 1e6)
    to_wall = torch.where(z > 1e-3, (WALL_Z - origin[..., 2]) / z, far)
    to_floor = torch.where(y > 1e-3, (FLOOR_Y - origin[..., 1]) / y, far)
    to_screen = torch.where(z > 1e-3, (SCREEN_Z - origin[..., 2]) / z, far)
    hit = origin + to_screen[..., None] * directions
    middle = torch.as_tensor(screen_x, dtype=centres.dtype).expand(views)[:, None, None]
    on_screen = ((hit[..., 0] - middle).abs() < 0.6) & (hit[..., 1] > -0.5) & (hit[..., 1] < FLOOR_Y)
    depth = torch.minimum(to_wall, to_floor)
    depth = torch.where(on_screen, torch.minimum(depth, to_screen), depth)
    points = origin + depth[..., None] * directions
    return SceneGeometry(pose[None], K[None], depth[None], points[None])


@pytest.fixture
def room_scene() -> RoomScene:
    """Builds an exact scene from camera centres, turns and the screen's place; see `_room_scene`."""
    return _room_scene


@pytest.fixture
def sliding_room(room_scene: RoomScene) -> SceneGeometry:
    """The room seen by five cameras that slide to the right."""
    steps = torch.arange(5.0)[:, None]
    return room_scene(steps * torch.tensor([0.15, -0.02, 0.05]), steps * torch.tensor([0.0, -0.02, 0.0]))
