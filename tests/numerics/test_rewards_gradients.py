"""Gradients of the reprojection reward against finite differences, and its invariances, in float64."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry, se3_from_rt, so3_exp, transform_points, unproject
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.world import render_clips, sample_scene

ROBUST = ReprojectionReward.robust()
VIEW = 2
STEP = 1e-8
"""Small enough that, at these seeds, no point changes its pixel between the two ends of a difference."""


@cache
def worlds() -> SceneGeometry:
    specs = [sample_scene("validation", i) for i in range(6)]
    return render_clips(specs, views="keys", supersample=1, dtype=torch.float64).geometry


def sideways(scene: SceneGeometry, distance: Tensor) -> SceneGeometry:
    """View VIEW of each clip moved to its right by `distance` [B]; points stay."""
    shift = torch.zeros_like(scene.camera_to_world)
    shift[:, VIEW, :3, 3] = scene.camera_to_world[:, VIEW, :3, 0]
    return replace(scene, camera_to_world=scene.camera_to_world + distance[:, None, None, None] * shift)


def deeper(scene: SceneGeometry, factor: Tensor) -> SceneGeometry:
    """The depth of view VIEW scaled by exp(factor), factor [B]; its points follow."""
    scale = torch.ones_like(scene.depth_z)
    scale[:, VIEW] = factor.exp()[:, None, None]
    depth = scene.depth_z * scale
    return replace(
        scene, depth_z=depth, world_points=unproject(depth, scene.intrinsics, scene.camera_to_world)
    )


def turned(scene: SceneGeometry, angle: Tensor) -> SceneGeometry:
    """View VIEW turned about its own upright axis by `angle` [B] rad; points stay."""
    w = torch.zeros(len(angle), scene.num_views, 3, dtype=scene.dtype)
    w[:, VIEW, 1] = angle
    return replace(
        scene, camera_to_world=scene.camera_to_world @ se3_from_rt(so3_exp(w), torch.zeros_like(w))
    )


def zoomed(scene: SceneGeometry, factor: Tensor) -> SceneGeometry:
    """The focal length of view VIEW scaled by exp(factor), factor [B]; points stay."""
    scale = torch.ones_like(scene.intrinsics)
    scale[:, VIEW, [0, 1], [0, 1]] = factor.exp()[:, None]
    return replace(scene, intrinsics=scene.intrinsics * scale)


Change = Callable[[SceneGeometry, Tensor], SceneGeometry]


def slopes(reward: ReprojectionReward, change: Change, at: float) -> tuple[Tensor, Tensor]:
    """d value / d parameter [B]: by backpropagation and by central differences."""
    x = torch.full((worlds().batch_size,), at, dtype=torch.float64, requires_grad=True)
    reward(change(worlds(), x)).value.sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        above, below = (reward(change(worlds(), x + sign * STEP)).value for sign in (1, -1))
    return x.grad, (above - below) / (2 * STEP)


@pytest.mark.parametrize(
    ("change", "at"), [(sideways, 0.15), (turned, 0.05), (zoomed, 0.05), (deeper, 0.1), (deeper, -0.1)]
)
def test_subpixel_gradient_agrees_with_finite_differences(change: Change, at: float) -> None:
    gradient, difference = slopes(ROBUST, change, at)
    assert torch.allclose(gradient, difference, rtol=1e-5, atol=1e-7)
    assert (gradient.abs() > 1e-4).all()


@pytest.mark.parametrize("side", [0.1, -0.1])
def test_subpixel_gradient_leads_a_sideways_camera_home(side: float) -> None:
    gradient, _ = slopes(ROBUST, sideways, side)
    assert (gradient * side < 0).all()


def test_pixel_gradient_is_blind_to_a_sideways_camera() -> None:
    gradient, _ = slopes(ReprojectionReward.robust(compare="pixel"), sideways, 0.15)
    assert gradient.abs().max() < 1e-12


def test_pixel_gradient_of_depth_agrees_with_finite_differences() -> None:
    gradient, difference = slopes(ReprojectionReward(), deeper, 0.1)
    assert torch.allclose(gradient, difference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "reward", [ReprojectionReward(), ROBUST, CameraMotionReward(), CameraMotionReward(order="jerk")]
)
def test_world_coordinates_do_not_matter(reward: ReprojectionReward | CameraMotionReward) -> None:
    w, t = torch.tensor([[0.3, -1.1, 0.7], [5.0, -3.0, 11.0]], dtype=torch.float64)
    change = se3_from_rt(so3_exp(w), t)
    scene = worlds()
    assert scene.scene_flow_from_ref is not None
    moved = replace(
        scene,
        camera_to_world=change @ scene.camera_to_world,
        world_points=transform_points(change, scene.world_points),
        scene_flow_from_ref=scene.scene_flow_from_ref @ change[:3, :3].mT,
    )
    assert torch.allclose(reward(moved).value, reward(scene).value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("factor", [0.01, 30.0])
@pytest.mark.parametrize(
    "reward",
    [ReprojectionReward(relative=True), ROBUST, CameraMotionReward(), CameraMotionReward(order="jerk")],
)
def test_scale_does_not_matter_where_relative(
    reward: ReprojectionReward | CameraMotionReward, factor: float
) -> None:
    scene = worlds()
    pose = scene.camera_to_world.clone()
    pose[..., :3, 3] *= factor
    scaled = replace(
        scene, camera_to_world=pose, depth_z=scene.depth_z * factor, world_points=scene.world_points * factor
    )
    assert torch.allclose(reward(scaled).value, reward(scene).value, rtol=0, atol=1e-9)


def test_scale_matters_to_the_papers_absolute_error() -> None:
    scene = worlds()
    pose = scene.camera_to_world.clone()
    pose[..., :3, 3] *= 3
    scaled = replace(
        scene, camera_to_world=pose, depth_z=scene.depth_z * 3, world_points=scene.world_points * 3
    )
    errors = (ReprojectionReward()(s).parts["reprojection_error"] for s in (scene, scaled))
    clean, tripled = errors
    assert torch.allclose(tripled, 3 * clean)
