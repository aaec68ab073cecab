"""SceneGeometry: validation, subsets, and the round trip through plain tensors."""

from dataclasses import replace

import pytest
import torch

from vggrpo.geometry import SceneGeometry


def make_scene(
    batch: int = 2, views: int = 3, height: int = 4, width: int = 5, **changes: object
) -> SceneGeometry:
    raster = (batch, views, height, width)
    fields: dict[str, object] = {
        "camera_to_world": torch.eye(4).expand(batch, views, 4, 4).clone(),
        "intrinsics": torch.eye(3).expand(batch, views, 3, 3).clone(),
        "depth_z": torch.arange(batch * views * height * width).reshape(raster).float() + 1,
        "world_points": torch.randn(*raster, 3),
        "confidence": torch.rand(raster),
        "scene_flow_from_ref": torch.randn(*raster, 3),
        "static_mask": torch.rand(raster) > 0.5,
    }
    return SceneGeometry(**{**fields, **changes})


def test_sizes_and_dtype() -> None:
    scene = make_scene()
    assert (scene.batch_size, scene.num_views, scene.height, scene.width) == (2, 3, 4, 5)
    assert scene.dtype == torch.float32
    assert scene.device == torch.device("cpu")


def test_optional_fields_may_be_missing() -> None:
    scene = make_scene(confidence=None, scene_flow_from_ref=None, static_mask=None)
    assert set(scene.as_dict()) == {"camera_to_world", "intrinsics", "depth_z", "world_points"}


def test_dict_round_trip_keeps_every_tensor() -> None:
    scene = make_scene(confidence=None)
    again = SceneGeometry.from_dict(scene.as_dict())
    assert again.confidence is None
    for name, tensor in scene.as_dict().items():
        assert torch.equal(getattr(again, name), tensor)


def test_from_dict_names_unknown_and_missing_tensors() -> None:
    tensors = make_scene().as_dict()
    tensors["extrinsics"] = tensors.pop("camera_to_world")
    with pytest.raises(ValueError, match=r"extrinsics.*camera_to_world"):
        SceneGeometry.from_dict(tensors)


def test_select_orders_views_and_accepts_slices_lists_and_tensors() -> None:
    scene = make_scene()
    for frames in ([0, 2], slice(0, 3, 2), torch.tensor([0, 2])):
        assert torch.equal(scene.select(frames).depth_z, scene.depth_z[:, [0, 2]])
    free = replace(scene, scene_flow_from_ref=None)
    assert torch.equal(free.select([2, 1]).world_points, scene.world_points[:, [2, 1]])


def test_select_refuses_to_lose_the_view_that_anchors_the_flow() -> None:
    with pytest.raises(ValueError, match="anchored to view 0"):
        make_scene().select([1, 2])


def test_select_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        make_scene().select(slice(0, 0))


def test_take_keeps_the_batch_dimension() -> None:
    scene = make_scene()
    for index in (1, -1, [1], slice(1, 2), torch.tensor(1), torch.tensor([False, True])):
        assert torch.equal(scene.take(index).depth_z, scene.depth_z[1:])


def test_concatenate_undoes_take() -> None:
    scene = make_scene()
    whole = SceneGeometry.concatenate([scene.take(0), scene.take(1)])
    for name, tensor in scene.as_dict().items():
        assert torch.equal(getattr(whole, name), tensor)


def test_concatenate_refuses_scenes_with_different_fields() -> None:
    with pytest.raises(ValueError, match=r"scenes\[1\].*confidence"):
        SceneGeometry.concatenate([make_scene(), make_scene(confidence=None)])
    with pytest.raises(ValueError, match="empty"):
        SceneGeometry.concatenate([])


def test_to_changes_all_but_the_mask() -> None:
    scene = make_scene().to(dtype=torch.float64)
    assert scene.depth_z.dtype == scene.camera_to_world.dtype == torch.float64
    assert scene.static_mask is not None
    assert scene.static_mask.dtype == torch.bool


def test_detach_cuts_the_gradient() -> None:
    depth = torch.ones(2, 3, 4, 5, requires_grad=True)
    assert not make_scene(depth_z=depth * 2).detach().depth_z.requires_grad


def test_non_finite_numbers_are_accepted_as_data() -> None:
    make_scene(
        camera_to_world=torch.full((2, 3, 4, 4), torch.nan), depth_z=torch.full((2, 3, 4, 5), torch.inf)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth_z": torch.ones(3, 4, 5)}, r"depth_z has shape \[3, 4, 5\].*batch dimension"),
        (
            {"intrinsics": torch.eye(3).expand(2, 4, 3, 3)},
            r"intrinsics has shape \[2, 4, 3, 3\].*\[2, 3, 3, 3\]",
        ),
        ({"world_points": torch.ones(2, 3, 3, 4, 5)}, "world_points has shape"),
        ({"confidence": torch.ones(2, 3, 4, 4)}, "confidence has shape"),
        ({"static_mask": torch.ones(2, 3, 4, 5)}, r"static_mask has dtype torch.float32.*torch.bool"),
        (
            {"world_points": torch.ones(2, 3, 4, 5, 3, dtype=torch.float64)},
            "world_points has dtype torch.float64",
        ),
        (
            {"camera_to_world": torch.eye(4).mT.roll(1, 1).expand(2, 3, 4, 4)},
            r"camera_to_world\[0, 0\] has last row",
        ),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_scene(**changes)


def test_integer_depth_is_an_error() -> None:
    scene = make_scene(confidence=None, scene_flow_from_ref=None)
    with pytest.raises(ValueError, match=r"dtype torch\.int64"):
        SceneGeometry(*(tensor.long() for tensor in list(scene.as_dict().values())[:4]))
