"""Static masks from scene flow, on a wall seen by still cameras, one pixel per unit of length."""

from dataclasses import replace

import pytest
import torch

from vggrpo.geometry import SceneGeometry, static_mask_from_flow, unproject, with_static_mask

HEIGHT, WIDTH, VIEWS = 8, 12, 3


def wall(depth: float = 10.0) -> SceneGeometry:
    raster = (1, VIEWS, HEIGHT, WIDTH)
    K = torch.tensor([[depth, 0, 0], [0, depth, 0], [0, 0, 1.0]]).expand(1, VIEWS, 3, 3)
    pose = torch.eye(4).expand(1, VIEWS, 4, 4)
    depth_z = torch.full(raster, depth)
    return SceneGeometry(pose, K, depth_z, unproject(depth_z, K), scene_flow_from_ref=torch.zeros(*raster, 3))


def with_flow(
    scene: SceneGeometry, row: int, column: int, steps: list[tuple[float, float, float]]
) -> SceneGeometry:
    flow = torch.zeros(1, VIEWS, HEIGHT, WIDTH, 3)
    flow[0, :, row, column] = torch.tensor(steps)
    return replace(scene, scene_flow_from_ref=flow)


def dynamic_pixels(mask: torch.Tensor, view: int) -> set[tuple[int, int]]:
    return {(int(r), int(c)) for r, c in (~mask[0, view]).nonzero().tolist()}


def test_no_flow_is_all_static() -> None:
    assert static_mask_from_flow(wall(), threshold=0.1).all()


def test_a_moving_point_is_dynamic_where_it_is_in_every_view_view_0_included() -> None:
    scene = with_flow(wall(), 3, 4, [(0, 0, 0), (2, 0, 0), (4, 1, 0)])
    mask = static_mask_from_flow(scene, threshold=0.5, dilate=0)
    assert [dynamic_pixels(mask, view) for view in range(VIEWS)] == [{(3, 4)}, {(3, 6)}, {(4, 8)}]


def test_the_greatest_displacement_decides_for_all_views() -> None:
    scene = with_flow(wall(), 3, 4, [(0, 0, 0), (0, 0, 0), (1, 0, 0)])
    mask = static_mask_from_flow(scene, threshold=0.5, dilate=0)
    assert dynamic_pixels(mask, 1) == {(3, 4)}
    assert static_mask_from_flow(scene, threshold=1.5).all()


def test_threshold_may_differ_within_the_batch() -> None:
    scene = with_flow(wall(), 3, 4, [(0, 0, 0), (1, 0, 0), (1, 0, 0)])
    both = SceneGeometry.concatenate([scene, scene])
    mask = static_mask_from_flow(both, threshold=torch.tensor([0.5, 1.5]))
    assert not mask[0].all()
    assert mask[1].all()


def test_marks_are_widened() -> None:
    scene = with_flow(wall(), 3, 4, [(0, 0, 0), (2, 0, 0), (2, 0, 0)])
    mask = static_mask_from_flow(scene, threshold=0.5, dilate=1)
    assert dynamic_pixels(mask, 1) == {(r, c) for r in (2, 3, 4) for c in (5, 6, 7)}


def test_marks_are_not_widened_onto_a_surface_of_another_depth() -> None:
    scene = with_flow(wall(), 3, 4, [(0, 0, 0), (2, 0, 0), (2, 0, 0)])
    depth_z = scene.depth_z.clone()
    depth_z[:, 1, :, 7:] = 12.0  # a step behind the moved point's right
    depth_z[:, 1, 4, 6] = 10.4
    mask = static_mask_from_flow(replace(scene, depth_z=depth_z), threshold=0.5, dilate=1)
    assert dynamic_pixels(mask, 1) == {(r, c) for r in (2, 3, 4) for c in (5, 6)}
    assert dynamic_pixels(mask, 2) == {(r, c) for r in (2, 3, 4) for c in (5, 6, 7)}


def test_a_point_that_moves_behind_the_surface_leaves_no_mark() -> None:
    hidden = with_flow(wall(), 0, 0, [(0, 0, 0), (0, 0, 2), (0, 0, -2)])
    mask = static_mask_from_flow(hidden, threshold=0.5, dilate=0)
    assert [len(dynamic_pixels(mask, view)) for view in range(VIEWS)] == [1, 0, 1]


def test_a_point_that_leaves_the_picture_leaves_no_mark() -> None:
    scene = with_flow(wall(), 3, 4, [(0, 0, 0), (100, 0, 0), (0, 0, -20)])
    mask = static_mask_from_flow(scene, threshold=0.5, dilate=0)
    assert [len(dynamic_pixels(mask, view)) for view in range(VIEWS)] == [1, 0, 0]


def test_with_static_mask_keeps_the_rest() -> None:
    scene = with_flow(wall(), 3, 4, [(0, 0, 0), (2, 0, 0), (2, 0, 0)])
    masked = with_static_mask(scene, threshold=0.5)
    assert torch.equal(masked.static_mask, static_mask_from_flow(scene, threshold=0.5))
    assert masked.depth_z is scene.depth_z


def test_missing_flow_and_negative_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="no scene_flow_from_ref"):
        static_mask_from_flow(replace(wall(), scene_flow_from_ref=None), threshold=0.1)
    with pytest.raises(ValueError, match=r"scene has dtype torch\.float16, in which pixels"):
        static_mask_from_flow(wall().to(dtype=torch.float16), threshold=0.1)
    with pytest.raises(ValueError, match="threshold is -1"):
        static_mask_from_flow(wall(), threshold=-1.0)
    with pytest.raises(ValueError, match="dilate is -1"):
        static_mask_from_flow(wall(), threshold=0.1, dilate=-1)
