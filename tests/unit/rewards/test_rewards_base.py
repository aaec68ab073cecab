"""What all rewards share: precision, validity of failed geometry, and gradients that are always finite."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from vggrpo.geometry import SceneGeometry
from vggrpo.rewards import CameraMotionReward, ReprojectionReward, SceneReward

REWARDS = [
    CameraMotionReward(),
    CameraMotionReward(order="jerk"),
    ReprojectionReward(),
    ReprojectionReward.robust(),
]


def broken(scene: SceneGeometry, field: str, value: float) -> SceneGeometry:
    """Two copies of the scene, the second with one bad number in `field`."""
    both = SceneGeometry.concatenate([scene, scene])
    tensor = getattr(both, field).clone()
    tensor[1].flatten()[5] = value
    return replace(both, **{field: tensor})


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("field", ["camera_to_world", "intrinsics", "depth_z", "world_points"])
def test_non_finite_geometry_is_invalid_and_harms_no_neighbour(
    reward: SceneReward, field: str, value: float, sliding_room: SceneGeometry
) -> None:
    alone = reward(sliding_room)
    both = reward(broken(sliding_room, field, value))
    assert both.valid.tolist() == [True, False]
    assert both.value[1].isnan()
    assert torch.equal(both.value[:1], alone.value)


@pytest.mark.parametrize("reward", REWARDS)
def test_gradients_stay_finite_beside_a_failed_sample(
    reward: SceneReward, sliding_room: SceneGeometry
) -> None:
    scene = broken(sliding_room, "world_points", torch.nan)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in scene.as_dict().items()}
    result = reward(SceneGeometry(**leaves))
    result.value[result.valid].sum().backward()
    for name, leaf in leaves.items():
        if leaf.grad is not None:
            assert torch.isfinite(leaf.grad).all(), name
            assert (leaf.grad[1] == 0).all(), name


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scenes_of_absurd_size_are_invalid_and_have_no_gradient(
    reward: SceneReward, scale: float, sliding_room: SceneGeometry
) -> None:
    pose = sliding_room.camera_to_world.clone()
    pose[..., :3, 3] *= scale
    points, depth = scale * sliding_room.world_points, scale * sliding_room.depth_z
    leaves = [tensor.clone().requires_grad_() for tensor in (pose, points, depth)]
    scene = replace(sliding_room, camera_to_world=leaves[0], world_points=leaves[1], depth_z=leaves[2])
    result = reward(scene)
    assert not result.valid.any()
    result.value.nan_to_num().sum().backward()
    assert all(leaf.grad is None or (leaf.grad == 0).all() for leaf in leaves)


@pytest.mark.parametrize("reward", REWARDS)
def test_no_surface_or_no_focal_length_is_invalid(reward: SceneReward, sliding_room: SceneGeometry) -> None:
    empty = replace(sliding_room, depth_z=torch.zeros_like(sliding_room.depth_z))
    assert not reward(empty).valid.any()
    blind = replace(sliding_room, intrinsics=sliding_room.intrinsics * torch.tensor([0.0, 1, 1])[:, None])
    assert not reward(blind).valid.any()


@pytest.mark.parametrize("reward", REWARDS)
def test_autocast_and_half_precision_inputs_are_computed_in_float32(
    reward: SceneReward, sliding_room: SceneGeometry
) -> None:
    plain = reward(sliding_room)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = reward(sliding_room)
    assert torch.equal(under_autocast.value, plain.value)
    assert plain.value.dtype == torch.float32
    assert reward(sliding_room.to(dtype=torch.bfloat16)).value.dtype == torch.float32
    assert reward(sliding_room.to(dtype=torch.float64)).value.dtype == torch.float64


@pytest.mark.parametrize("reward", REWARDS)
def test_a_batch_is_scored_sample_by_sample(
    reward: SceneReward, sliding_room: SceneGeometry, room_scene: Callable[..., SceneGeometry]
) -> None:
    other = room_scene(torch.randn(5, 3) * 0.1, torch.randn(5, 3) * 0.02)
    both = reward(SceneGeometry.concatenate([sliding_room, other]))
    assert torch.allclose(both.value[0], reward(sliding_room).value[0], atol=1e-6)
    assert torch.allclose(both.value[1], reward(other).value[0], atol=1e-6)
    for name, part in both.parts.items():
        assert part.shape in ((2,), (2, 5)), name
        assert not part.requires_grad
