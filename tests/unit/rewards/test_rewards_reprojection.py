"""The reprojection reward on analytic scenes: the paper's formula by hand, and each option alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry, unproject
from vggrpo.rewards import ReprojectionReward

RoomScene = Callable[..., SceneGeometry]


def facing_views(depths: list[float], height: int = 4, width: int = 4) -> SceneGeometry:
    """Still cameras, each of which claims a wall across its view at another depth."""
    views = len(depths)
    depth = torch.tensor(depths)[None, :, None, None].expand(1, views, height, width).clone()
    K = torch.tensor([[4.0, 0, 1.5], [0, 4.0, 1.5], [0, 0, 1]]).expand(1, views, 3, 3)
    pose = torch.eye(4).expand(1, views, 4, 4)
    return SceneGeometry(pose, K, depth, unproject(depth, K, pose))


def test_the_papers_formula_by_hand() -> None:
    result = ReprojectionReward()(facing_views([1.0, 1.5, 3.0, 2.0, 1.2]))
    errors = torch.tensor([0, 0.5, 2.0, 1.0, 0.2])
    assert torch.allclose(result.parts["view_error"][0], errors)
    assert torch.allclose(result.parts["reprojection_error"], errors.sort().values[-3:].mean())
    assert torch.allclose(result.value, 1 / (1 + torch.tensor([3.5 / 3])))
    assert torch.equal(result.parts["overlap"], torch.ones(1, 5))


def test_relative_divides_by_the_median_depth() -> None:
    scene = facing_views([1.0, 1.5, 3.0, 2.0, 1.2])
    absolute, relative = ReprojectionReward()(scene), ReprojectionReward(relative=True)(scene)
    assert torch.allclose(relative.parts["view_error"], absolute.parts["view_error"] / 1.5)


def test_exclude_own_compares_with_the_others_only() -> None:
    result = ReprojectionReward(exclude_own=True)(facing_views([1.0, 1.5, 3.0]))
    assert torch.allclose(result.parts["view_error"], torch.tensor([[0.5, 0.5, 2.0]]))


@pytest.mark.parametrize(
    ("worst_k", "expected"), [(1, 2.0), (2, 1.5), (3, 3.5 / 3), (5, 3.7 / 5), (99, 3.7 / 5)]
)
def test_worst_k_views_count(worst_k: int, expected: float) -> None:
    result = ReprojectionReward(worst_k=worst_k)(facing_views([1.0, 1.5, 3.0, 2.0, 1.2]))
    assert torch.allclose(result.parts["reprojection_error"], torch.tensor([expected]))


def test_only_valid_views_count_among_the_worst() -> None:
    scene = facing_views([1.0, 1.0, 2.0, 2.0])
    depth = scene.depth_z.clone()
    depth[0, 3, :3] = 0
    result = ReprojectionReward(min_overlap=0.5)(replace(scene, depth_z=depth))
    assert result.parts["view_valid"].tolist() == [[True, True, True, False]]
    assert result.parts["view_error"][0, 3].isnan()
    assert result.parts["overlap"].tolist() == [[1, 1, 1, 0.25]]
    assert result.parts["valid_view_share"].item() == 0.75
    assert torch.allclose(result.parts["reprojection_error"], torch.tensor([1.0 / 3]))


def test_no_valid_view_is_a_failed_reward() -> None:
    scene = facing_views([1.0])
    assert ReprojectionReward()(scene).value.item() == 1
    failed = ReprojectionReward(exclude_own=True)(scene)
    assert not failed.valid.item()
    assert failed.value.isnan().item()
    assert failed.parts["reprojection_error"].isnan().item()


def test_confidence_quantile_leaves_out_points_but_not_pixels() -> None:
    scene = facing_views([1.0, 2.0])
    confidence = torch.ones(1, 2, 4, 4)
    confidence[0, 0] = 0.1
    unsure = replace(scene, confidence=confidence)
    assert torch.equal(ReprojectionReward()(unsure).parts["view_error"], torch.tensor([[0.0, 1.0]]))
    result = ReprojectionReward(confidence_quantile=0.6)(unsure)
    assert torch.equal(result.parts["view_error"], torch.tensor([[1.0, 0.0]]))
    assert result.parts["overlap"].min() == 1


def test_dynamic_pixels_count_neither_as_points_nor_as_pixels() -> None:
    scene = facing_views([1.0, 2.0])
    mask = torch.ones(1, 2, 4, 4, dtype=torch.bool)
    mask[0, 0, :, :2] = False
    result = ReprojectionReward()(scene.with_static_mask(mask))
    assert torch.equal(result.parts["overlap"], torch.tensor([[0.5, 1.0]]))
    assert torch.equal(result.parts["view_error"], torch.tensor([[0.0, 0.5]]))
    assert result.parts["static_share"].item() == 0.75
    assert result.parts["dynamics_filtered"].item()
    unfiltered = ReprojectionReward(dynamic_filter=False)(scene.with_static_mask(mask))
    assert unfiltered.parts["static_share"].item() == 1
    assert not unfiltered.parts["dynamics_filtered"].item()


def test_flow_stands_in_for_a_missing_mask_and_its_threshold_follows_the_unit() -> None:
    scene = facing_views([4.0, 4.0])
    flow = torch.zeros(1, 2, 4, 4, 3)
    flow[0, 1, 1, 1, 0] = 0.3
    moving = replace(scene, scene_flow_from_ref=flow)
    absolute = ReprojectionReward(flow_threshold=0.2)(moving)
    assert absolute.parts["static_share"].item() < 1
    assert absolute.parts["dynamics_filtered"].item()
    assert ReprojectionReward(flow_threshold=0.2, relative=True)(moving).parts["static_share"].item() == 1
    assert not ReprojectionReward()(scene).parts["dynamics_filtered"].item()


def test_occlusion_tolerance_saturates_only_what_lies_behind() -> None:
    reward = ReprojectionReward(exclude_own=True, occlusion_tolerance=0.1)
    assert torch.allclose(reward(facing_views([1.0, 3.0])).parts["view_error"], torch.tensor([[0.1, 2.0]]))


@pytest.mark.parametrize("compare", ["pixel", "subpixel"])
def test_exact_geometry_has_almost_no_error(compare: str, sliding_room: SceneGeometry) -> None:
    result = ReprojectionReward.robust(compare=compare)(sliding_room)
    assert result.parts["reprojection_error"].item() < {"pixel": 0.03, "subpixel": 0.002}[compare]
    assert result.parts["overlap"].min() > 0.6
    assert result.parts["view_valid"].all()


def test_noise_in_the_depth_cannot_excuse_itself_as_edges(sliding_room: SceneGeometry) -> None:
    values, noise = [], torch.randn_like(sliding_room.depth_z)
    for size in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        depth = sliding_room.depth_z * torch.exp(size * noise)
        points = unproject(depth, sliding_room.intrinsics, sliding_room.camera_to_world)
        result = ReprojectionReward.robust()(replace(sliding_room, depth_z=depth, world_points=points))
        assert result.parts["view_valid"].all()
        values.append(result.value.item())
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_wrong_depth_is_not_excused_as_occlusion(factor: float, sliding_room: SceneGeometry) -> None:
    depth = sliding_room.depth_z.clone()
    depth[:, 2] *= factor
    points = unproject(depth, sliding_room.intrinsics, sliding_room.camera_to_world)
    result = ReprojectionReward.robust()(replace(sliding_room, depth_z=depth, world_points=points))
    assert result.parts["view_valid"].all()
    assert result.parts["view_error"][0, 2] > 0.04


def test_memory_limit_does_not_change_the_score(sliding_room: SceneGeometry) -> None:
    whole = ReprojectionReward.robust()(sliding_room)
    assert torch.equal(ReprojectionReward.robust(max_elements=1000)(sliding_room).value, whole.value)


@pytest.mark.parametrize("reward", [ReprojectionReward(), ReprojectionReward.robust()])
def test_gradients_are_finite_for_equal_still_cameras(
    reward: ReprojectionReward, room_scene: RoomScene
) -> None:
    leaves = {n: t.clone().requires_grad_() for n, t in room_scene(torch.zeros(4, 3)).as_dict().items()}
    reward(SceneGeometry(**leaves)).value.sum().backward()
    grads: list[Tensor] = [leaf.grad for leaf in leaves.values() if leaf.grad is not None]
    assert grads
    assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("compare", ["pixel", "subpixel"])
def test_the_error_map_is_what_the_view_errors_average(compare: str, sliding_room: SceneGeometry) -> None:
    noise = 1 + 0.02 * torch.randn(sliding_room.depth_z.shape, generator=torch.Generator().manual_seed(0))
    noisy = replace(sliding_room, depth_z=sliding_room.depth_z * noise.to(sliding_room.dtype))
    reward = ReprojectionReward.robust(compare=compare, min_overlap=0.0)
    errors, parts = reward.error_map(noisy), reward(noisy).parts
    compared = errors.isfinite()
    torch.testing.assert_close(compared.flatten(2).to(noisy.dtype).mean(2), parts["overlap"])
    torch.testing.assert_close(errors.nanmean(dim=(2, 3)), parts["view_error"])
    assert 0.1 < compared.double().mean() < 1
    broken = replace(noisy, depth_z=torch.full_like(noisy.depth_z, torch.nan))
    assert reward.error_map(broken).isnan().all()


def test_overrides_of_the_robust_settings() -> None:
    robust = ReprojectionReward.robust(min_overlap=0.3)
    assert (robust.relative, robust.exclude_own, robust.compare, robust.min_overlap) == (
        True,
        True,
        "subpixel",
        0.3,
    )
    paper = ReprojectionReward()
    assert (paper.relative, paper.exclude_own, paper.compare, paper.worst_k) == (False, False, "pixel", 3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"compare": "nearest"}, "compare is 'nearest'"),
        ({"min_overlap": 1.0}, r"min_overlap is 1\.0"),
        ({"confidence_quantile": -0.1}, r"confidence_quantile is -0\.1"),
        ({"occlusion_tolerance": 0.0}, r"occlusion_tolerance is 0\.0"),
        ({"edge_tolerance": -1.0}, "edge_tolerance is -1"),
        ({"flow_threshold": 0.0}, "flow_threshold is 0"),
        ({"worst_k": 0}, "worst_k is 0"),
        ({"max_elements": 0}, "max_elements is 0"),
    ],
)
def test_wrong_settings_are_named(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReprojectionReward(**setting)
