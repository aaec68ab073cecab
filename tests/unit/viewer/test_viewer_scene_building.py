"""What is added to a geometry model's prediction: mask, colours, rewards; and what cannot be."""

import math
from dataclasses import replace

import pytest
import torch
from exact_scenes import HEIGHT, WIDTH, exact_scene

from vggrpo.geometry import SceneGeometry
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.viewer import Scene4D, build_scene, depth_colours


@pytest.fixture(scope="module")
def geometry() -> SceneGeometry:
    """Exact, without a mask."""
    return replace(exact_scene().geometry, static_mask=None)


def build(geometry: SceneGeometry, **changes: object) -> Scene4D:
    values: dict[str, object] = {
        "fps": 8.0,
        "rewards": {"camera_motion": CameraMotionReward(), "reprojection": ReprojectionReward.robust()},
        "flow_threshold": 0.03,
        "relative": True,
    }
    return build_scene(geometry, None, (0, 4, 8), **(values | changes))


def test_the_mask_is_the_worlds_own_and_one_that_is_known_is_kept(geometry: SceneGeometry) -> None:
    exact = exact_scene().geometry.static_mask
    assert exact is not None
    derived = build(geometry).geometry.static_mask
    assert (derived[:, 0] == exact[:, 0]).float().mean() > 0.98
    known = replace(geometry, static_mask=torch.zeros_like(exact))
    assert not build(known).geometry.static_mask.any()
    unknown = replace(geometry, scene_flow_from_ref=None)
    assert build(unknown).geometry.static_mask is None


def test_the_threshold_is_in_scene_units_or_in_median_depths(geometry: SceneGeometry) -> None:
    pose = geometry.camera_to_world.clone()
    pose[..., :3, 3] *= 128
    bigger = replace(
        geometry,
        camera_to_world=pose,
        depth_z=geometry.depth_z * 128,
        world_points=geometry.world_points * 128,
        scene_flow_from_ref=geometry.scene_flow_from_ref * 128,
    )
    masks = [build(one).geometry.static_mask for one in (geometry, bigger)]
    assert torch.equal(*masks)
    far = float(geometry.scene_flow_from_ref.norm(dim=-1).max())
    assert build(geometry, relative=False, flow_threshold=1.01 * far).geometry.static_mask.all()
    assert not build(bigger, relative=False, flow_threshold=1.01 * far).geometry.static_mask.all()


def test_rewards_are_recorded_with_their_views(geometry: SceneGeometry) -> None:
    record = build(geometry).rewards["reprojection"]
    assert record.value > 0.99
    assert record.note is None
    assert len(record.parts["view_error"]) == len(record.parts["overlap"]) == 3
    assert isinstance(record.parts["reprojection_error"], float)


def test_rewards_that_cannot_be_computed_say_why(geometry: SceneGeometry) -> None:
    short = geometry.select([0, 1])
    rewards = {"camera_motion": CameraMotionReward()}
    scene = build_scene(short, None, (0, 4), fps=8.0, rewards=rewards, flow_threshold=0.03, relative=True)
    assert math.isnan(scene.rewards["camera_motion"].value)
    assert "2 views" in scene.rewards["camera_motion"].note
    broken = geometry.depth_z.clone()
    broken[0, 1, 2, 3] = torch.nan
    records = build(replace(geometry, depth_z=broken)).rewards
    assert all(math.isnan(record.value) for record in records.values())
    assert all("not finite" in record.note for record in records.values())


def test_a_scene_without_any_surface(geometry: SceneGeometry) -> None:
    scene = build(replace(geometry, depth_z=torch.zeros_like(geometry.depth_z)))
    assert scene.geometry.static_mask.all()
    assert not scene.colours.any()
    assert math.isnan(scene.rewards["reprojection"].value)


def test_the_right_frames_give_the_colours(geometry: SceneGeometry) -> None:
    frames = torch.linspace(0, 1, 9)[:, None, None, None].expand(9, 2 * HEIGHT, 3 * WIDTH, 3)
    scene = build_scene(geometry, frames, (0, 4, 8), fps=8.0, rewards={}, flow_threshold=0.03, relative=True)
    assert scene.colours.shape == (3, HEIGHT, WIDTH, 3)
    assert scene.colours.flatten(1).float().mean(dim=1).tolist() == pytest.approx([0, 128, 255])
    assert scene.source["colours"] == "video"


def test_near_is_warm_far_is_cold_and_nothing_is_black() -> None:
    depth = torch.linspace(1, 10, 32)[None, None].expand(1, 8, 32).clone()
    depth[0, 0, 0], depth[0, 1, 1] = 0, torch.nan
    colours = depth_colours(depth).int()
    red, _, blue = colours[0, 4].unbind(-1)
    assert red[1] > 2 * blue[1]
    assert blue[-3] > red[-3]
    assert colours[0, 0, 0].tolist() == colours[0, 1, 1].tolist() == [0, 0, 0]
