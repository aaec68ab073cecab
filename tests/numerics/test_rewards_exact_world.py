"""Rewards on exact procedural scenes: almost no error, and every planted fault stands out where it is."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry, unproject
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.world import Fault, FaultKind, WorldClips, render_clips, sample_scene

FAULTY = 2
OTHERS = [0, 1, 3, 4]
SUBPIXEL = ReprojectionReward.robust()
PIXEL = ReprojectionReward(relative=True)
PIXEL_OF_OTHERS = ReprojectionReward.robust(compare="pixel")


@cache
def clips() -> WorldClips:
    """24 clips of 5 views, static and dynamic, smooth and shaky."""
    return render_clips([sample_scene("test", i) for i in range(24)], views="keys", supersample=1)


def worlds() -> SceneGeometry:
    return clips().geometry


def rise(reward: ReprojectionReward, faulty: SceneGeometry, clean: SceneGeometry) -> Tensor:
    """How many times greater each view's error has become, [B, T]."""
    return reward(faulty).parts["view_error"] / reward(clean).parts["view_error"]


def with_moved_camera(scene: SceneGeometry, distance: float, points_follow: bool) -> SceneGeometry:
    """View FAULTY claims to have been taken from `distance` further to its right."""
    pose = scene.camera_to_world.clone()
    pose[:, FAULTY, :3, 3] += distance * pose[:, FAULTY, :3, 0]
    points = scene.world_points.clone()
    if points_follow:
        points[:, FAULTY] = unproject(scene.depth_z[:, FAULTY], scene.intrinsics[:, FAULTY], pose[:, FAULTY])
    return replace(scene, camera_to_world=pose, world_points=points)


def with_scaled_depth(scene: SceneGeometry, factor: float) -> SceneGeometry:
    """The depth of view FAULTY, and the points that follow from it, are wrong by a factor."""
    depth = scene.depth_z.clone()
    depth[:, FAULTY] *= factor
    return replace(
        scene, depth_z=depth, world_points=unproject(depth, scene.intrinsics, scene.camera_to_world)
    )


@pytest.mark.parametrize(("reward", "limit"), [(SUBPIXEL, 0.01), (PIXEL, 0.03), (PIXEL_OF_OTHERS, 0.03)])
def test_exact_scenes_have_almost_no_error(reward: ReprojectionReward, limit: float) -> None:
    result = reward(worlds())
    assert result.valid.all()
    assert result.parts["view_valid"].all()
    assert result.parts["overlap"].min() > 0.5
    assert result.parts["reprojection_error"].max() <= limit


@pytest.mark.parametrize("distance", [0.1, -0.1, 0.3])
@pytest.mark.parametrize("points_follow", [True, False])
def test_a_camera_moved_sideways_stands_out_in_its_view(distance: float, points_follow: bool) -> None:
    times = rise(SUBPIXEL, with_moved_camera(worlds(), distance, points_follow), worlds())
    assert times[:, FAULTY].min() >= 3
    if not points_follow:
        assert torch.equal(times[:, OTHERS], torch.ones_like(times[:, OTHERS]))


def test_a_camera_moved_sideways_stands_out_between_pixel_centres_too() -> None:
    times = rise(PIXEL, with_moved_camera(worlds(), 0.3, points_follow=False), worlds())
    assert times[:, FAULTY].median() >= 3


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
@pytest.mark.parametrize("reward", [SUBPIXEL, PIXEL_OF_OTHERS])
def test_a_scaled_depth_stands_out_in_its_view(reward: ReprojectionReward, factor: float) -> None:
    faulty = with_scaled_depth(worlds(), factor)
    assert reward(faulty).parts["view_valid"].all()
    assert rise(reward, faulty, worlds())[:, FAULTY].min() >= 3


@pytest.mark.parametrize("factor", [0.8, 0.9])
def test_points_that_are_too_near_stand_out_in_all_other_views(factor: float) -> None:
    assert rise(SUBPIXEL, with_scaled_depth(worlds(), factor), worlds())[:, OTHERS].min() >= 3


def test_a_moving_object_that_is_not_masked_stands_out_in_every_view_that_sees_it() -> None:
    scene = worlds()
    assert scene.static_mask is not None
    specs = [sample_scene("test", i) for i in range(24)]
    travels = torch.tensor([any(o.motion in ("linear", "circular") for o in s.objects) for s in specs])
    sees_it = travels[:, None] & ((~scene.static_mask).float().mean(dim=(2, 3)) > 0.01)
    assert sees_it.sum() > 20
    unmasked = replace(scene, static_mask=None, scene_flow_from_ref=None)
    assert rise(SUBPIXEL, unmasked, scene)[sees_it].min() >= 3
    assert not SUBPIXEL(unmasked).parts["dynamics_filtered"].any()


def test_flow_recovers_most_of_the_exact_mask() -> None:
    scene = worlds()
    exact = SUBPIXEL(scene).parts["reprojection_error"]
    derived = SUBPIXEL(replace(scene, static_mask=None)).parts["reprojection_error"]
    unmasked = SUBPIXEL(replace(scene, static_mask=None, scene_flow_from_ref=None)).parts[
        "reprojection_error"
    ]
    dynamic = clips().is_dynamic
    assert torch.equal(derived[~dynamic], exact[~dynamic])
    assert (derived - exact)[dynamic].sum() < 0.25 * (unmasked - exact)[dynamic].sum()


@pytest.mark.parametrize("order", ["acceleration", "jerk"])
def test_shaky_clips_score_below_smooth_ones(order: str) -> None:
    value = CameraMotionReward(order=order)(worlds()).value
    shaky = clips().is_shaky
    pairs = value[~shaky][:, None] > value[shaky][None]
    assert pairs.float().mean() > 0.8


@pytest.mark.parametrize("kind", ["warped", "wobbling"])
def test_a_bending_world_scores_below_its_clean_clip(kind: FaultKind) -> None:
    specs = [sample_scene("test", i) for i in range(24)]
    bent = render_clips(specs, views="keys", supersample=1, fault=Fault(kind)).geometry
    clean, faulty = SUBPIXEL(worlds()), SUBPIXEL(bent)
    assert faulty.valid.all()
    assert (faulty.value < clean.value).all()
    assert rise(SUBPIXEL, bent, worlds()).nanmean(dim=1).min() >= 3


def test_textures_that_slide_over_standing_geometry_are_not_the_geometrys_fault() -> None:
    specs = [sample_scene("test", i) for i in range(3)]
    sliding = render_clips(specs, views="keys", supersample=1, fault=Fault("sliding")).geometry
    assert torch.equal(SUBPIXEL(sliding).value, SUBPIXEL(worlds()).value[:3])
