"""Point rendering: hand-made cases and arguments; parity with a loop is tested under tests/numerics."""

import pytest
import torch

from vggrpo.geometry import intrinsics_from_fov, render_depth, unproject

K = torch.tensor([[2.0, 0, 1], [0, 2, 1], [0, 0, 1]]).reshape(1, 1, 3, 3)
POSE = torch.eye(4).reshape(1, 1, 4, 4)


def test_the_nearest_of_two_points_wins_and_the_rest_stays_empty() -> None:
    points = torch.tensor([[[0.0, 0, 3], [0, 0, 2], [0.5, 0, 1]]])
    render = render_depth(points, None, POSE, K, 3, 3)
    assert render.point_index[0, 0].tolist() == [[-1, -1, -1], [-1, 1, 2], [-1, -1, -1]]
    assert render.depth[0, 0].tolist() == [[0, 0, 0], [0, 2, 1], [0, 0, 0]]
    assert torch.equal(render.covered, render.point_index >= 0)
    assert render.uv[0, 0, 1, 2].tolist() == [2, 1]


def test_of_equally_near_points_the_first_wins() -> None:
    points = torch.tensor([[[0.05, 0, 2], [0, 0, 2], [-0.05, 0, 2]]])
    assert render_depth(points, None, POSE, K, 3, 3).point_index[0, 0, 1, 1] == 0


def test_positions_between_pixels_round_to_the_nearest_centre() -> None:
    points = torch.tensor([[[0.24, 0, 1], [-0.24, 0, 1], [0.26, 0, 1]]])
    render = render_depth(points, None, POSE, K, 3, 3)
    assert render.point_index[0, 0, 1].tolist() == [-1, 0, 2]
    assert torch.allclose(render.uv[0, 0, 1, 1], torch.tensor([1.48, 1.0]))


def test_what_is_behind_or_outside_or_not_finite_is_not_drawn() -> None:
    points = torch.tensor(
        [[[0.0, 0, -1], [0, 0, 0], [9, 0, 1], [0, -9, 1], [torch.nan, 0, 1], [0, 0, torch.inf]]]
    )
    assert not render_depth(points, None, POSE, K, 3, 3).covered.any()


def test_keep_applies_to_all_views_or_to_each() -> None:
    points = torch.tensor([[[0.0, 0, 2], [0, 0, 3]]])
    pose, intrinsics = POSE.expand(1, 2, 4, 4), K.expand(1, 2, 3, 3)
    for_all = render_depth(points, torch.tensor([[False, True]]), pose, intrinsics, 3, 3)
    assert for_all.depth[0, :, 1, 1].tolist() == [3, 3]
    for_each = render_depth(points, torch.tensor([[[True, True], [False, True]]]), pose, intrinsics, 3, 3)
    assert for_each.depth[0, :, 1, 1].tolist() == [2, 3]


def test_hidden_view_leaves_a_point_out_of_one_view_only() -> None:
    points = torch.tensor([[[0.0, 0, 2], [0, 0, 3], [0, 0, 4]]])
    pose, intrinsics = POSE.expand(1, 3, 4, 4), K.expand(1, 3, 3, 3)
    render = render_depth(points, None, pose, intrinsics, 3, 3, hidden_view=torch.tensor([0, 1, -1]))
    assert render.depth[0, :, 1, 1].tolist() == [3, 2, 2]


def test_far_from_the_origin_points_keep_their_pixels() -> None:
    intrinsics, pose = intrinsics_from_fov(1.0, 48, 64)[None, None], POSE.repeat(1, 2, 1, 1)
    pose[0, :, :3, 3] = torch.tensor([[1000.0, -2000.0, 500.0], [1000.5, -2000.0, 500.0]])
    points = unproject(torch.full((48, 64), 4.0), intrinsics[0, 0], pose[0, 0]).reshape(1, -1, 3)
    render = render_depth(points, None, pose, intrinsics.expand(1, 2, 3, 3), 48, 64)
    assert torch.equal(render.point_index[0, 0].flatten(), torch.arange(48 * 64))


def test_scenes_of_a_batch_do_not_mix() -> None:
    points = torch.randn(3, 40, 3) + torch.tensor([0, 0, 3.0])
    pose, intrinsics = POSE.expand(3, 2, 4, 4), K.expand(3, 2, 3, 3)
    together = render_depth(points, None, pose, intrinsics, 3, 3)
    for b in range(3):
        alone = render_depth(points[b : b + 1], None, pose[:1], intrinsics[:1], 3, 3)
        assert torch.equal(together.depth[b : b + 1], alone.depth)


def test_gradient_reaches_winners_only_and_is_finite_beside_bad_points() -> None:
    points = torch.tensor([[[torch.nan, 0, 1], [0, 0, 2], [0, 0, 3]]], requires_grad=True)
    pose = POSE.clone().requires_grad_()
    render = render_depth(points, None, pose, K, 3, 3)
    (render.depth.sum() + render.uv.sum()).backward()
    assert points.grad is not None
    assert points.grad[0, 1, 2] == 1
    assert (points.grad[0, [0, 2]] == 0).all()
    assert torch.isfinite(pose.grad).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": torch.ones(4, 3)}, r"points has shape \[4, 3\]"),
        ({"points": torch.ones(1, 0, 3)}, "points holds 0 points"),
        ({"points": torch.ones(1, 4, 3).bfloat16()}, "points has dtype torch.bfloat16, in which pixels"),
        ({"keep": torch.ones(1, 5, dtype=torch.bool)}, r"keep has shape \[1, 5\].*\[B, N\]"),
        ({"keep": torch.ones(1, 4)}, "keep has dtype"),
        ({"intrinsics": K.expand(1, 2, 3, 3)}, r"intrinsics has shape.*\[B, V, 3, 3\]"),
        ({"camera_to_world": POSE.expand(2, 1, 4, 4)}, "camera_to_world has shape"),
        ({"max_elements": 0}, "max_elements is 0"),
        ({"height": 0}, "height x width is 0 x 3"),
        ({"hidden_view": torch.zeros(3, dtype=torch.long)}, "hidden_view has shape"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "points": torch.ones(1, 4, 3),
        "keep": None,
        "camera_to_world": POSE,
        "intrinsics": K,
        "height": 3,
        "width": 3,
    }
    with pytest.raises(ValueError, match=message):
        render_depth(**{**arguments, **changes})
