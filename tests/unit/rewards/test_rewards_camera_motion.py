"""The camera-motion reward: closed forms, what counts as shake, and what does not."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry, se3_from_rt, so3_exp
from vggrpo.rewards import CameraMotionReward

RoomScene = Callable[..., SceneGeometry]
ORDERS = ["acceleration", "jerk"]
DEPTH = 4.0


def f64(values: list[float] | list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def scene_of_path(centres: Tensor, turns: Tensor | None = None) -> SceneGeometry:
    """A clip [1, T] at constant depth: this reward reads cameras, and depth only as a unit."""
    views = centres.shape[0]
    turns = torch.zeros_like(centres) if turns is None else turns
    return SceneGeometry(
        camera_to_world=se3_from_rt(so3_exp(turns), centres)[None],
        intrinsics=torch.eye(3, dtype=centres.dtype).expand(1, views, 3, 3),
        depth_z=torch.full((1, views, 2, 2), DEPTH, dtype=centres.dtype),
        world_points=torch.zeros(1, views, 2, 2, 3, dtype=centres.dtype),
    )


def line(views: int = 6, step: float = 0.2) -> Tensor:
    return step * torch.arange(views, dtype=torch.float64)[:, None] * f64([0.6, 0.0, 0.8])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_static_camera_scores_exactly_one_with_zero_gradient(order: str, dtype: torch.dtype) -> None:
    pose = se3_from_rt(so3_exp(torch.randn(3)), torch.randn(3)).to(dtype)
    scene = scene_of_path(torch.zeros(6, 3, dtype=dtype))
    cameras = pose.expand(1, 6, 4, 4).clone().requires_grad_()
    result = CameraMotionReward(order=order)(replace(scene, camera_to_world=cameras))
    result.value.sum().backward()
    assert result.value.item() == 1
    assert torch.isfinite(cameras.grad).all()


@pytest.mark.parametrize("order", ORDERS)
def test_constant_velocity_scores_one(order: str) -> None:
    turns = torch.arange(6).double()[:, None] * f64([0.01, 0.05, -0.02])
    result = CameraMotionReward(order=order)(scene_of_path(line(), turns))
    assert math.isclose(result.value.item(), 1, abs_tol=1e-9)
    assert math.isclose(result.parts["translation_speed"].item(), 0.2 / DEPTH, rel_tol=1e-9)
    expected = torch.tensor([0.01, 0.05, -0.02]).norm().item()
    assert math.isclose(result.parts["rotation_speed"].item(), expected, rel_tol=1e-6)


def test_acceleration_of_a_known_path() -> None:
    centres = f64([[0.0, 0, 0], [1, 0, 0], [1, 2, 0], [1, 2, 0]])
    floor = 0.5
    result = CameraMotionReward(translation_floor=floor / DEPTH)(scene_of_path(centres))
    e_trans = 0.5 * (math.sqrt(5) / (1 + 2 + floor) + 2 / (2 + 0 + floor))
    assert math.isclose(result.parts["e_trans"].item(), e_trans, rel_tol=1e-12)
    assert math.isclose(result.value.item(), 0.5 * (1 / (1 + e_trans) + 1), rel_tol=1e-12)


def test_jerk_of_a_known_turn() -> None:
    angles = f64([0.0, 0.1, 0.3, 0.4])
    turns = angles[:, None] * f64([0.0, 1, 0])
    result = CameraMotionReward(order="jerk", rotation_floor=0.05)(
        scene_of_path(torch.zeros(4, 3).double(), turns)
    )
    e_rot = abs(0.1 - 2 * 0.2 + 0.1) / (0.4 / 3 + 0.05)
    assert math.isclose(result.parts["e_rot"].item(), e_rot, rel_tol=1e-9)
    assert result.parts["e_trans"].item() == 0


@pytest.mark.parametrize("order", ORDERS)
def test_shake_scores_below_smooth_at_equal_path_length(order: str) -> None:
    smooth = line(views=9)
    across = f64([0.8, 0.0, -0.6]) * torch.tensor([0.0, 1] * 4 + [0.0])[:, None] * 0.15
    shaky = smooth * math.sqrt(1 - (0.15 / 0.2) ** 2) + across
    lengths = [(path[1:] - path[:-1]).norm(dim=-1).sum().item() for path in (smooth, shaky)]
    assert math.isclose(*lengths, rel_tol=1e-9)
    reward = CameraMotionReward(order=order)
    assert reward(scene_of_path(shaky)).value < reward(scene_of_path(smooth)).value - 0.1


def test_more_shake_scores_lower() -> None:
    shake, reward = torch.randn(9, 3).double(), CameraMotionReward()
    values = [reward(scene_of_path(line(9), size * shake)).value.item() for size in (0, 0.01, 0.03, 0.1)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.85


@pytest.mark.parametrize("order", ORDERS)
def test_pose_noise_of_a_still_camera_does_not_read_as_shake(order: str) -> None:
    noisy = scene_of_path(DEPTH * 1e-4 * torch.randn(17, 3), 1e-4 * torch.randn(17, 3))
    assert CameraMotionReward(order=order)(noisy).value > 0.9


def test_shake_faster_than_the_views_is_invisible() -> None:
    every_frame = 0.2 * torch.arange(17).double()[:, None] * f64([0.0, 0, 1])
    every_frame[1::2, 0] += 0.1
    reward = CameraMotionReward()
    assert reward(scene_of_path(every_frame)).value < 0.9
    assert math.isclose(reward(scene_of_path(every_frame[::4])).value.item(), 1, abs_tol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_does_not_depend_on_world_coordinates_or_on_scale(order: str) -> None:
    scene = scene_of_path(torch.randn(6, 3).double(), 0.3 * torch.randn(6, 3).double())
    reward = CameraMotionReward(order=order)
    change = se3_from_rt(so3_exp(torch.randn(3).double()), 10 * torch.randn(3).double())
    moved = replace(scene, camera_to_world=change @ scene.camera_to_world)
    assert torch.allclose(reward(moved).value, reward(scene).value, atol=1e-10)
    pose = scene.camera_to_world.clone()
    pose[..., :3, 3] *= 37
    scaled = replace(scene, camera_to_world=pose, depth_z=scene.depth_z * 37)
    assert torch.allclose(reward(scaled).value, reward(scene).value, atol=1e-10)


@pytest.mark.parametrize("order", ORDERS)
def test_gradcheck(order: str) -> None:
    centres = torch.randn(5, 3).double().requires_grad_()
    turns = (0.3 * torch.randn(5, 3).double()).requires_grad_()
    reward = CameraMotionReward(order=order)
    assert torch.autograd.gradcheck(lambda c, w: reward(scene_of_path(c, w)).value, (centres, turns))


def test_wrong_settings_and_too_few_views_are_named() -> None:
    with pytest.raises(ValueError, match="order is 'snap'"):
        CameraMotionReward(order="snap")
    with pytest.raises(ValueError, match=r"rotation_floor is 0\.0"):
        CameraMotionReward(rotation_floor=0.0)
    with pytest.raises(ValueError, match=r"2 views.*at least 3"):
        CameraMotionReward()(scene_of_path(line(2)))
    with pytest.raises(ValueError, match=r"3 views.*at least 4.*acceleration"):
        CameraMotionReward(order="jerk")(scene_of_path(line(3)))
