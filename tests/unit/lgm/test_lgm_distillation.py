"""The distillation loss: each part in closed form, gradients, invariances, weights."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry, intrinsics_from_fov, se3_from_rt, so3_exp, unproject
from vggrpo.lgm import DEFAULT_WEIGHTS, distillation_loss


def scene(batch: int = 2, views: int = 3, seed: int = 0) -> SceneGeometry:
    generator = torch.Generator().manual_seed(seed)
    twists = 0.3 * torch.randn(batch, views, 3, generator=generator)
    camera_to_world = se3_from_rt(so3_exp(twists), torch.randn(batch, views, 3, generator=generator))
    intrinsics = (
        intrinsics_from_fov(torch.tensor(1.2 + 0.1 * seed), 4, 5).expand(batch, views, 3, 3).contiguous()
    )
    depth_z = 2 + torch.rand(batch, views, 4, 5, generator=generator)
    return SceneGeometry(
        camera_to_world=camera_to_world,
        intrinsics=intrinsics,
        depth_z=depth_z,
        world_points=unproject(depth_z, intrinsics, camera_to_world),
        confidence=1 + torch.rand(batch, views, 4, 5, generator=generator),
        scene_flow_from_ref=torch.randn(batch, views, 4, 5, 3, generator=generator),
    )


def leaves(geometry: SceneGeometry) -> tuple[SceneGeometry, dict[str, Tensor]]:
    """The scene over tensors that collect gradients."""
    tensors = {name: value.clone().requires_grad_() for name, value in geometry.as_dict().items()}
    return SceneGeometry(**tensors), tensors


def median(teacher: SceneGeometry) -> Tensor:
    return teacher.depth_z.flatten(1).median(1).values


def test_zero_with_finite_gradients_where_both_agree() -> None:
    teacher = scene()
    student, tensors = leaves(teacher)
    loss, parts = distillation_loss(student, teacher)
    assert set(parts) == set(DEFAULT_WEIGHTS)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    loss.backward()
    for name, tensor in tensors.items():
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name


def test_every_output_gets_a_gradient() -> None:
    student, tensors = leaves(scene(seed=1))
    distillation_loss(student, scene())[0].backward()
    for name, tensor in tensors.items():
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().max() > 0, name


def test_parts_in_closed_form() -> None:
    teacher = scene()
    s = median(teacher)
    assert teacher.confidence is not None
    assert teacher.scene_flow_from_ref is not None
    intrinsics = teacher.intrinsics.clone()
    intrinsics[..., 1, 1] *= 1.5
    student = replace(
        teacher,
        depth_z=teacher.depth_z * 1.2,
        world_points=teacher.world_points + torch.tensor([0.0, 0.3, -0.6]),
        intrinsics=intrinsics,
        scene_flow_from_ref=teacher.scene_flow_from_ref - 0.5,
        confidence=2 * teacher.confidence,
    )
    _, parts = distillation_loss(student, teacher)
    expected = {
        "depth": math.log(1.2),
        "points": (0.3 / s).mean().item(),
        "rotation": 0.0,
        "translation": 0.0,
        "intrinsics": math.log(1.5) / 2,
        "scene_flow": (0.5 / s).mean().item(),
        "confidence": math.log(2),
    }
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(expected, abs=1e-6)


def test_rotation_is_the_geodesic_angle_of_cameras_and_of_their_steps() -> None:
    teacher = scene()
    turn = so3_exp(torch.tensor([0.1, -0.2, 0.2]))  # .3 rad
    turned = teacher.camera_to_world.clone()
    turned[:, 1, :3, :3] = turned[:, 1, :3, :3] @ turn
    _, parts = distillation_loss(replace(teacher, camera_to_world=turned), teacher)
    # One camera of three is off, and both steps touch it.
    assert parts["rotation"].item() == pytest.approx(0.3 / 3 + 0.3, rel=0.01)


def test_translation_is_relative_to_the_depth() -> None:
    teacher = scene()
    moved = teacher.camera_to_world.clone()
    moved[..., :3, 3] += torch.tensor([0.0, 1.2, 0.0])
    _, parts = distillation_loss(replace(teacher, camera_to_world=moved), teacher)
    assert parts["translation"].item() == pytest.approx((1.2 / median(teacher)).mean().item(), rel=0.01)
    last = teacher.camera_to_world.clone()
    last[:, 2, :3, 3] += torch.tensor([0.0, 1.2, 0.0])
    _, parts = distillation_loss(replace(teacher, camera_to_world=last), teacher)
    expected = (1 / 3 + 1 / 2) * (1.2 / median(teacher)).mean().item()
    assert parts["translation"].item() == pytest.approx(expected, rel=0.01)


def test_does_not_depend_on_the_unit_of_length() -> None:
    def scaled(geometry: SceneGeometry) -> SceneGeometry:
        cameras = geometry.camera_to_world.clone()
        cameras[..., :3, 3] *= 7
        assert geometry.scene_flow_from_ref is not None
        return replace(
            geometry,
            camera_to_world=cameras,
            depth_z=7 * geometry.depth_z,
            world_points=7 * geometry.world_points,
            scene_flow_from_ref=7 * geometry.scene_flow_from_ref,
        )

    loss = distillation_loss(scene(seed=1), scene())[0]
    torch.testing.assert_close(distillation_loss(scaled(scene(seed=1)), scaled(scene()))[0], loss)


def test_a_step_against_the_gradient_lowers_the_loss() -> None:
    student, tensors = leaves(scene(seed=1))
    before = distillation_loss(student, scene())[0]
    before.backward()
    with torch.no_grad():
        stepped = SceneGeometry(
            **{name: t - 1e-3 * t.grad for name, t in tensors.items() if t.grad is not None}
        )
    assert distillation_loss(stepped, scene())[0] < before


def test_weights() -> None:
    student, teacher = scene(seed=1), scene()
    loss, parts = distillation_loss(student, teacher)
    torch.testing.assert_close(loss, sum(DEFAULT_WEIGHTS[name] * part for name, part in parts.items()))
    only_depth = dict.fromkeys(DEFAULT_WEIGHTS, 0.0) | {"depth": 3.0}
    loss, _ = distillation_loss(student, teacher, only_depth)
    torch.testing.assert_close(loss, 3 * parts["depth"])


def test_confidence_weighs_pixels() -> None:
    teacher = scene()
    confidence = torch.ones_like(teacher.depth_z)
    confidence[:, :, :, 0] = 9
    teacher = replace(teacher, confidence=confidence)
    depth = teacher.depth_z.clone()
    depth[:, :, :, 0] *= 2  # one column of five
    student = replace(teacher, depth_z=depth)
    assert distillation_loss(student, teacher)[1]["depth"].item() == pytest.approx(math.log(2) / 5)
    weighted = distillation_loss(student, teacher, weight_by_confidence=True)[1]["depth"]
    assert weighted.item() == pytest.approx(math.log(2) * 9 / 13)


def test_blind_pixels_of_the_teacher_harm_neither_loss_nor_gradient() -> None:
    teacher = scene()
    depth, points, flow = (
        x.clone()
        for x in (teacher.depth_z, teacher.world_points, teacher.scene_flow_from_ref)
        if x is not None
    )
    depth[:, :, 0, 0], points[:, :, 0, 0], flow[:, :, 0, 0] = math.nan, math.nan, math.nan
    depth[:, :, 0, 1] = 0
    blind = replace(teacher, depth_z=depth, world_points=points, scene_flow_from_ref=flow)
    student, tensors = leaves(scene(seed=1))
    loss, _ = distillation_loss(student, blind)
    loss.backward()
    assert loss.isfinite()
    for name, tensor in tensors.items():
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all(), name
    assert (tensors["depth_z"].grad[:, :, 0, :2] == 0).all()  # type: ignore[index]


def test_points_behind_the_camera_and_negative_focal_lengths_are_finite() -> None:
    """Both come out of untrained networks."""
    student, tensors = leaves(replace(scene(), depth_z=-scene().depth_z, intrinsics=-scene().intrinsics))
    loss, _ = distillation_loss(student, scene())
    loss.backward()
    assert loss.isfinite()
    for name, tensor in tensors.items():
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all(), name


def test_static_models_have_fewer_parts() -> None:
    teacher = replace(scene(), scene_flow_from_ref=None, confidence=None)
    _, parts = distillation_loss(scene(seed=1), teacher)
    assert set(parts) == set(DEFAULT_WEIGHTS) - {"scene_flow", "confidence"}


def test_one_view() -> None:
    loss, _ = distillation_loss(scene(seed=1).select([0]), scene().select([0]))
    assert loss.isfinite()


def test_the_teacher_gets_no_gradient() -> None:
    teacher, tensors = leaves(scene())
    student, _ = leaves(scene(seed=1))
    distillation_loss(student, teacher)[0].backward()
    assert all(tensor.grad is None for tensor in tensors.values())


class TestBadInput:
    def test_unknown_part(self) -> None:
        with pytest.raises(ValueError, match="'detph' is no part"):
            distillation_loss(scene(), scene(), {"detph": 1.0})

    @pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
    def test_weight_that_is_no_weight(self, value: float) -> None:
        with pytest.raises(ValueError, match="the weight of depth is"):
            distillation_loss(scene(), scene(), {"depth": value})

    def test_student_without_flow(self) -> None:
        with pytest.raises(ValueError, match="the teacher predicts scene flow but the student does not"):
            distillation_loss(replace(scene(), scene_flow_from_ref=None), scene())

    def test_confidence_of_a_teacher_without(self) -> None:
        with pytest.raises(ValueError, match="weight_by_confidence"):
            distillation_loss(scene(), replace(scene(), confidence=None), weight_by_confidence=True)

    def test_other_clips(self) -> None:
        with pytest.raises(ValueError, match="the student's depth has shape"):
            distillation_loss(scene(views=2), scene())
