"""Agreement of scenes, in known units."""

import math
from dataclasses import replace

import pytest
import torch

from vggrpo.geometry import (
    SceneGeometry,
    intrinsics_from_fov,
    se3_from_rt,
    so3_exp,
    transform_points,
    unproject,
)
from vggrpo.lgm import agreement
from vggrpo.lgm.quality import agreement_where_seen


def scene(batch: int = 2, views: int = 4, height: int = 5, width: int = 6) -> SceneGeometry:
    generator = torch.Generator().manual_seed(0)
    turns = torch.linspace(0, 0.5, views)[:, None] * torch.tensor([0.0, 1.0, 0.2])
    centres = torch.linspace(0, 3, views)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    camera_to_world = se3_from_rt(so3_exp(turns), centres).expand(batch, views, 4, 4).contiguous()
    intrinsics = intrinsics_from_fov(torch.tensor(1.2), height, width).expand(batch, views, 3, 3).contiguous()
    depth_z = 2 + torch.rand(batch, views, height, width, generator=generator)
    return SceneGeometry(
        camera_to_world=camera_to_world,
        intrinsics=intrinsics,
        depth_z=depth_z,
        world_points=unproject(depth_z, intrinsics, camera_to_world),
        confidence=1 + torch.rand(batch, views, height, width, generator=generator),
        scene_flow_from_ref=torch.randn(batch, views, height, width, 3, generator=generator),
    )


def test_a_scene_agrees_with_itself() -> None:
    teacher = scene()
    for name, value in agreement(teacher, teacher).items():
        assert torch.equal(value, torch.zeros(2)), name


def test_depth_errors() -> None:
    teacher = scene()
    student = replace(teacher, depth_z=teacher.depth_z * torch.tensor([1.1, 0.5])[:, None, None, None])
    errors = agreement(student, teacher)
    torch.testing.assert_close(errors["depth_abs_rel"], torch.tensor([0.1, 0.5]))
    torch.testing.assert_close(errors["depth_log"], torch.tensor([math.log(1.1), math.log(2)]))


def test_pixels_that_the_teacher_does_not_see_do_not_count() -> None:
    teacher = scene()
    depth = teacher.depth_z.clone()
    depth[:, 0, 0] = torch.tensor([0.0, -1.0, math.nan, math.inf, 1e-5, 0.0])
    student = replace(teacher, depth_z=torch.where(depth == teacher.depth_z, 1.1 * teacher.depth_z, 77.0))
    errors = agreement(student, replace(teacher, depth_z=depth))
    torch.testing.assert_close(errors["depth_abs_rel"], torch.tensor([0.1, 0.1]))


def test_camera_errors_do_not_depend_on_the_world_frame() -> None:
    teacher = scene()
    world = se3_from_rt(so3_exp(torch.tensor([0.3, -1.0, 0.4])), torch.tensor([5.0, -2.0, 1.0]))
    moved = replace(teacher, camera_to_world=world @ teacher.camera_to_world)
    errors = agreement(moved, teacher)
    assert errors["rotation_deg"].max() < 1e-3
    assert errors["translation_error"].max() < 1e-5


def test_rotation_error_is_the_mean_angle_relative_to_the_first_view() -> None:
    teacher = scene()
    turned = teacher.camera_to_world.clone()
    turned[:, 2, :3, :3] = turned[:, 2, :3, :3] @ so3_exp(torch.tensor([0.0, 0.0, 0.3]))
    errors = agreement(replace(teacher, camera_to_world=turned), teacher)
    torch.testing.assert_close(errors["rotation_deg"], torch.full((2,), math.degrees(0.3) / 3))


def test_translation_error_is_relative_to_the_path() -> None:
    teacher = scene()
    longer = teacher.camera_to_world.clone()
    longer[..., :3, 3] *= 1.5  # path 3; later views off by .5, 1, 1.5
    errors = agreement(replace(teacher, camera_to_world=longer), teacher)
    torch.testing.assert_close(errors["translation_error"], torch.full((2,), 1 / 3))


def test_translation_error_of_a_still_camera_is_relative_to_the_depth() -> None:
    teacher = scene()
    still = teacher.camera_to_world.clone()
    still[..., :3, 3] = 0
    teacher = replace(teacher, camera_to_world=still)
    shifted = still.clone()
    shifted[:, 1:, 2, 3] = 0.01
    median = teacher.depth_z.flatten(1).median(1).values
    errors = agreement(replace(teacher, camera_to_world=shifted), teacher)
    torch.testing.assert_close(errors["translation_error"], 0.01 / (0.05 * median))


def test_focal_and_flow_errors() -> None:
    teacher = scene()
    intrinsics = teacher.intrinsics.clone()
    intrinsics[..., 0, 0] *= 2
    assert teacher.scene_flow_from_ref is not None
    flow = teacher.scene_flow_from_ref + torch.tensor([0.0, 0.3, -0.4])
    errors = agreement(replace(teacher, intrinsics=intrinsics, scene_flow_from_ref=flow), teacher)
    torch.testing.assert_close(errors["focal_log"], torch.full((2,), math.log(2) / 2))
    torch.testing.assert_close(errors["flow_epe"], torch.full((2,), 0.5))


def test_models_without_flow_have_no_flow_error() -> None:
    teacher = replace(scene(), scene_flow_from_ref=None)
    assert "flow_epe" not in agreement(scene(), teacher)


def test_points_moved_with_their_cameras_keep_the_agreement() -> None:
    teacher = scene()
    world = se3_from_rt(so3_exp(torch.tensor([0.3, -1.0, 0.4])), torch.tensor([5.0, -2.0, 1.0]))
    moved = replace(
        teacher,
        camera_to_world=world @ teacher.camera_to_world,
        world_points=transform_points(world, teacher.world_points),
    )
    assert agreement(moved, teacher)["depth_abs_rel"].max() == 0


class TestBadInput:
    def test_other_shapes(self) -> None:
        with pytest.raises(ValueError, match="the student's depth has shape"):
            agreement(scene(views=3), scene())

    def test_one_view(self) -> None:
        with pytest.raises(ValueError, match="one view"):
            agreement(scene().select([0]), scene().select([0]))

    def test_blind_teacher(self) -> None:
        teacher = scene()
        depth = teacher.depth_z.clone()
        depth[1] = 0
        with pytest.raises(ValueError, match=r"no surface in scenes \[1\]"):
            agreement(teacher, replace(teacher, depth_z=depth))


def test_blind_scenes_have_no_agreement_and_leave_the_others_alone() -> None:
    teacher = scene()
    student = replace(teacher, depth_z=1.1 * teacher.depth_z)
    depth = teacher.depth_z.clone()
    depth[1] = torch.nan
    errors = agreement_where_seen(student, replace(teacher, depth_z=depth))
    for name, expected in agreement(student, teacher).items():
        assert errors[name][1].isnan(), name
        torch.testing.assert_close(errors[name][0], expected[0])
    with pytest.raises(ValueError, match="sees no surface in scenes"):
        agreement(student, replace(teacher, depth_z=depth))
