"""From a prediction to a scene, on exact rays and poses."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vggrpo.backbones.any4d import Any4DPrediction, scene_from_prediction
from vggrpo.geometry import (
    camera_rays,
    intrinsics_from_fov,
    invert_se3,
    matrix_to_quat_xyzw,
    pixel_grid,
    project,
    se3_from_rt,
    so3_exp,
    unproject,
)

B, T, H, W = 2, 3, 6, 8
SCALE = torch.tensor([2.0, 0.5])


@pytest.fixture
def truth() -> dict[str, torch.Tensor]:
    """Random cameras (view 0's too), depths and flow, lengths in metric units."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    intrinsics = intrinsics_from_fov(1.0 + 0.2 * uniform(B, T), H, W)
    return {
        "intrinsics": intrinsics,
        "camera_to_world": se3_from_rt(so3_exp(uniform(B, T, 3)), uniform(B, T, 3)),
        "depth_z": 3 + uniform(B, T, H, W),
        "flow": uniform(B, T, H, W, 3),
    }


def exact_prediction(truth: dict[str, torch.Tensor]) -> Any4DPrediction:
    """What a perfect network says: lengths divided by the scale, rays and quaternions of any length."""
    rays = camera_rays(truth["intrinsics"], H, W)
    length = torch.linalg.vector_norm(rays, dim=-1)
    per_view, per_pixel = SCALE[:, None, None], SCALE[:, None, None, None]
    return Any4DPrediction(
        ray_vectors=1.7 * rays,
        log_depth=(truth["depth_z"] * length / per_pixel).log(),
        log_confidence=torch.full((B, T, H, W), 2.0).log(),
        mask_logits=torch.zeros(B, T, H, W),
        scene_flow=truth["flow"] / per_pixel[..., None],
        translation=truth["camera_to_world"][..., :3, 3] / per_view,
        quat_vectors=-0.3 * matrix_to_quat_xyzw(truth["camera_to_world"][..., :3, :3]),
        log_scale=SCALE.log(),
    )


def test_scene_without_anchoring_is_the_truth(truth):
    scene = scene_from_prediction(exact_prediction(truth), anchor_first_view=False)
    points = unproject(truth["depth_z"], truth["intrinsics"], truth["camera_to_world"])
    torch.testing.assert_close(scene.camera_to_world, truth["camera_to_world"])
    torch.testing.assert_close(scene.intrinsics, truth["intrinsics"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scene.depth_z, truth["depth_z"])
    torch.testing.assert_close(scene.world_points, points, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scene.scene_flow_from_ref, truth["flow"])
    torch.testing.assert_close(scene.confidence, torch.full((B, T, H, W), 3.0))


def test_anchored_scene_is_the_truth_seen_from_camera_0(truth):
    scene = scene_from_prediction(exact_prediction(truth))
    to_camera_0 = invert_se3(truth["camera_to_world"][:, :1])
    assert torch.equal(scene.camera_to_world[:, 0], torch.eye(4).expand(B, 4, 4))
    torch.testing.assert_close(scene.camera_to_world, to_camera_0 @ truth["camera_to_world"])
    moved = scene.world_points[:, :1] + scene.scene_flow_from_ref
    points = unproject(truth["depth_z"], truth["intrinsics"], truth["camera_to_world"])
    expected = (points[:, :1] + truth["flow"]) @ to_camera_0[:, :, None, :3, :3].mT
    expected = expected + to_camera_0[:, :, None, None, :3, 3]
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("anchor", [True, False])
def test_points_project_onto_their_own_pixels(truth, anchor):
    scene = scene_from_prediction(exact_prediction(truth), anchor)
    uv, z = project(scene.world_points, scene.intrinsics, scene.camera_to_world)
    torch.testing.assert_close(uv, pixel_grid(H, W).expand(B, T, H, W, 2), rtol=0, atol=1e-3)
    torch.testing.assert_close(z, scene.depth_z)


def test_the_metric_scale_multiplies_every_length_once(truth):
    prediction = exact_prediction(truth)
    scene = scene_from_prediction(prediction)
    tripled = scene_from_prediction(
        replace(prediction, log_scale=prediction.log_scale + torch.tensor(3.0).log())
    )
    for name in ("depth_z", "world_points", "scene_flow_from_ref"):
        torch.testing.assert_close(getattr(tripled, name), 3 * getattr(scene, name))
    torch.testing.assert_close(tripled.camera_to_world[..., :3, 3], 3 * scene.camera_to_world[..., :3, 3])
    assert torch.equal(tripled.camera_to_world[..., :3, :3], scene.camera_to_world[..., :3, :3])
    assert torch.equal(tripled.intrinsics, scene.intrinsics)


def test_a_global_motion_of_the_world_does_not_change_the_anchored_scene(truth):
    motion = se3_from_rt(so3_exp(torch.tensor([0.3, -1.0, 0.5])), torch.tensor([4.0, -2.0, 1.0]))
    moved = truth | {
        "camera_to_world": motion @ truth["camera_to_world"],
        "flow": truth["flow"] @ motion[:3, :3].mT,
    }
    scene, other = (scene_from_prediction(exact_prediction(t)) for t in (truth, moved))
    for name, value in scene.as_dict().items():
        torch.testing.assert_close(other.as_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_points_follow_the_predicted_rays_even_where_they_are_no_pinhole(truth):
    prediction = exact_prediction(truth)
    bent = prediction.ray_vectors + 0.05 * torch.randn(
        prediction.ray_vectors.shape, generator=torch.Generator().manual_seed(1)
    )
    scene = scene_from_prediction(replace(prediction, ray_vectors=bent))
    distance = prediction.depth_along_ray * SCALE[:, None, None, None]
    torch.testing.assert_close(
        scene.world_points[:, 0], (F.normalize(bent, dim=-1) * distance[..., None])[:, 0]
    )
    torch.testing.assert_close(scene.depth_z[:, 0], scene.world_points[:, 0, ..., 2])


def test_every_raw_value_but_the_mask_receives_a_gradient(truth):
    prediction = exact_prediction(truth)
    raw = {name: value.clone().requires_grad_() for name, value in vars(prediction).items()}
    scene = scene_from_prediction(Any4DPrediction(**raw))
    sum((value * torch.rand_like(value)).sum() for value in scene.as_dict().values()).backward()
    for name, value in raw.items():
        if name == "mask_logits":
            assert value.grad is None
        else:
            assert value.grad is not None
            assert value.grad.isfinite().all()
            assert value.grad.abs().sum() > 0


def test_autocast_does_not_touch_the_adapter(truth):
    prediction = exact_prediction(truth)
    scene = scene_from_prediction(prediction)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = scene_from_prediction(prediction)
    for name, value in scene.as_dict().items():
        assert torch.equal(under_autocast.as_dict()[name], value)
