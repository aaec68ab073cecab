"""From a prediction to a scene, on exact depths and cameras; and what rewards make of such scenes."""

import math

import pytest
import torch
from torch import Tensor

from vggrpo.backbones.vggt import VGGTPrediction, scene_from_prediction
from vggrpo.geometry import (
    camera_rays,
    invert_se3,
    matrix_to_quat_xyzw,
    pixel_grid,
    project,
    se3_from_rt,
    so3_exp,
    unproject,
)
from vggrpo.rewards import CameraMotionReward, ReprojectionReward

B, T, H, W = 2, 4, 18, 24
WALL = 5.0
"""Depth of a wall that all views see, in the frame of the world."""


def intrinsics(focal: Tensor) -> Tensor:
    """K of focal lengths [B, T, 2] = (fx, fy), as VGGT's training had it."""
    K = torch.eye(3).expand(B, T, 3, 3).clone()
    K[..., 0, 0], K[..., 1, 1] = focal.unbind(-1)
    K[..., 0, 2], K[..., 1, 2] = W / 2, H / 2
    return K


@pytest.fixture
def truth() -> dict[str, Tensor]:
    """Cameras of a world of its own, each looking roughly ahead at a wall; view 0 is not at the origin."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    camera_to_world = se3_from_rt(so3_exp(0.1 * uniform(B, T, 3)), 0.3 * uniform(B, T, 3))
    K = intrinsics(24 + 4 * uniform(B, T, 2))
    directions = camera_rays(K, H, W) @ camera_to_world[..., None, :3, :3].mT
    depth_z = (WALL - camera_to_world[..., None, None, 2, 3]) / directions[..., 2]
    return {"intrinsics": K, "camera_to_world": camera_to_world, "depth_z": depth_z}


def exact_prediction(truth: dict[str, Tensor]) -> VGGTPrediction:
    """What a perfect network says in its last step: world-to-camera, a quaternion of any length."""
    K = truth["intrinsics"]
    world_to_camera = invert_se3(truth["camera_to_world"])
    focal = torch.stack([K[..., 1, 1] / H, K[..., 0, 0] / W], dim=-1)
    fov = 2 * (0.5 / focal).atan()
    quat = -0.3 * matrix_to_quat_xyzw(world_to_camera[..., :3, :3])
    last = torch.cat([world_to_camera[..., :3, 3], quat, fov], dim=-1)
    return VGGTPrediction(
        pose_encodings=torch.stack([torch.randn(last.shape), last]),
        log_depth=truth["depth_z"].log(),
        log_depth_confidence=torch.full((B, T, H, W), 2.0).log(),
        point_vectors=torch.randn(B, T, H, W, 3),
        log_point_confidence=torch.zeros(B, T, H, W),
    )


def test_scene_without_anchoring_is_the_truth(truth):
    scene = scene_from_prediction(exact_prediction(truth), anchor_first_view=False)
    points = unproject(truth["depth_z"], truth["intrinsics"], truth["camera_to_world"])
    torch.testing.assert_close(scene.camera_to_world, truth["camera_to_world"])
    torch.testing.assert_close(scene.intrinsics, truth["intrinsics"])
    torch.testing.assert_close(scene.depth_z, truth["depth_z"])
    torch.testing.assert_close(scene.world_points, points, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scene.world_points[..., 2], torch.full((B, T, H, W), WALL))
    torch.testing.assert_close(scene.confidence, torch.full((B, T, H, W), 3.0))
    assert scene.scene_flow_from_ref is None
    assert scene.static_mask is None


def test_anchored_scene_is_the_truth_seen_from_camera_0(truth):
    scene = scene_from_prediction(exact_prediction(truth))
    to_camera_0 = invert_se3(truth["camera_to_world"][:, :1])
    assert torch.equal(scene.camera_to_world[:, 0], torch.eye(4).expand(B, 4, 4))
    torch.testing.assert_close(scene.camera_to_world, to_camera_0 @ truth["camera_to_world"])
    points = unproject(truth["depth_z"], truth["intrinsics"], to_camera_0 @ truth["camera_to_world"])
    torch.testing.assert_close(scene.world_points, points, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("anchor", [True, False])
def test_points_project_onto_their_own_pixels(truth, anchor):
    scene = scene_from_prediction(exact_prediction(truth), anchor)
    uv, z = project(scene.world_points, scene.intrinsics, scene.camera_to_world)
    torch.testing.assert_close(uv, pixel_grid(H, W).expand(B, T, H, W, 2), rtol=0, atol=1e-4)
    torch.testing.assert_close(z, scene.depth_z)


def test_a_right_angle_of_view_has_a_focal_length_of_half_the_side(truth):
    prediction = exact_prediction(truth)
    prediction.pose_encodings[-1, ..., 7:] = torch.tensor([math.pi / 2, math.pi / 3])
    K = scene_from_prediction(prediction).intrinsics
    torch.testing.assert_close(K[..., 1, 1], torch.full((B, T), H / 2))
    torch.testing.assert_close(K[..., 0, 0], torch.full((B, T), W / 2 * math.sqrt(3)))


def test_a_global_motion_of_the_world_does_not_change_the_anchored_scene(truth):
    motion = se3_from_rt(so3_exp(torch.tensor([0.3, -1.0, 0.5])), torch.tensor([4.0, -2.0, 1.0]))
    moved = truth | {"camera_to_world": motion @ truth["camera_to_world"]}
    scene, other = (scene_from_prediction(exact_prediction(t)) for t in (truth, moved))
    for name, value in scene.as_dict().items():
        torch.testing.assert_close(other.as_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_only_what_the_scene_is_made_of_receives_a_gradient(truth):
    raw = {name: value.clone().requires_grad_() for name, value in vars(exact_prediction(truth)).items()}
    scene = scene_from_prediction(VGGTPrediction(**raw))
    sum((value * torch.rand_like(value)).sum() for value in scene.as_dict().values()).backward()
    assert raw["point_vectors"].grad is None
    assert raw["log_point_confidence"].grad is None
    poses = raw["pose_encodings"].grad
    assert (poses[0] == 0).all()
    assert poses[-1].isfinite().all()
    assert (poses[-1].abs().sum(dim=(0, 1)) > 0).all()
    for name in ("log_depth", "log_depth_confidence"):
        assert raw[name].grad.isfinite().all()
        assert raw[name].grad.abs().sum() > 0


def test_autocast_does_not_touch_the_adapter(truth):
    prediction = exact_prediction(truth)
    scene = scene_from_prediction(prediction)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = scene_from_prediction(prediction)
    for name, value in scene.as_dict().items():
        assert torch.equal(under_autocast.as_dict()[name], value)


def test_a_still_world_has_the_best_reprojection_reward_and_says_that_nothing_was_filtered(truth):
    scene = scene_from_prediction(exact_prediction(truth))
    for reward in (ReprojectionReward(), ReprojectionReward.robust()):
        result = reward(scene)
        assert result.valid.all()
        assert not result.parts["dynamics_filtered"].any()
        assert (result.parts["static_share"] == 1).all()
        assert (result.parts["overlap"] > 0.5).all()
    assert (result.value > 0.9999).all()  # between pixels, where a wall is compared exactly


def test_what_moves_counts_as_an_error(truth):
    still = scene_from_prediction(exact_prediction(truth))
    nearer = truth | {"depth_z": truth["depth_z"].clone()}
    nearer["depth_z"][:, 2, 4:14, 6:18] -= 1.5  # something that only one view sees there
    moved = scene_from_prediction(exact_prediction(nearer))
    reward = ReprojectionReward.robust()
    assert (reward(moved).value < reward(still).value - 0.01).all()


@pytest.mark.parametrize("fov", [0.0, -0.7])
def test_a_camera_that_sees_nothing_is_a_failure_with_finite_gradients(truth, fov):
    prediction = exact_prediction(truth)
    prediction.pose_encodings[-1, 0, 1, 7:] = fov
    raw = {name: value.clone().requires_grad_() for name, value in vars(prediction).items()}
    scene = scene_from_prediction(VGGTPrediction(**raw))
    assert scene.world_points.isfinite().all()
    rewards = [reward(scene) for reward in (CameraMotionReward(), ReprojectionReward.robust())]
    for result in rewards:
        assert result.valid.tolist() == [False, True]
    sum(result.value[result.valid].sum() for result in rewards).backward()
    for name in ("pose_encodings", "log_depth"):
        assert raw[name].grad.isfinite().all()
        assert raw[name].grad.abs().sum() > 0
