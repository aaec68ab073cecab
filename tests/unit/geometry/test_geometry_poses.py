"""Rigid transforms."""

import pytest
import torch

from vggrpo.geometry import invert_se3, relative_pose, rotate, se3_from_rt, so3_exp, transform_points


def random_pose(*batch: int) -> torch.Tensor:
    w, t = torch.randn(*batch, 3, dtype=torch.float64), torch.randn(*batch, 3, dtype=torch.float64)
    return se3_from_rt(so3_exp(w), t)


def test_inverse_against_linear_algebra() -> None:
    pose = random_pose(4, 5)
    assert torch.allclose(invert_se3(pose), torch.linalg.inv(pose), atol=1e-12)


def test_relative_pose_takes_b_coordinates_to_a() -> None:
    a, b = random_pose(6), random_pose(6)
    x_b = torch.randn(6, 10, 3, dtype=torch.float64)
    world = transform_points(b, x_b)
    assert torch.allclose(transform_points(a, transform_points(relative_pose(a, b), x_b)), world, atol=1e-12)


def test_transform_broadcasts_over_batch_and_grid() -> None:
    pose = random_pose(2, 3)
    points = torch.randn(2, 1, 4, 5, 3, dtype=torch.float64)
    moved = transform_points(pose, points)
    assert moved.shape == (2, 3, 4, 5, 3)
    expected = pose[1, 2, :3, :3] @ points[1, 0, 3, 4] + pose[1, 2, :3, 3]
    assert torch.allclose(moved[1, 2, 3, 4], expected, atol=1e-12)


def test_rotate_against_einsum() -> None:
    R = so3_exp(torch.randn(3, 3, dtype=torch.float64))
    x = torch.randn(3, 8, 3, dtype=torch.float64)
    assert torch.allclose(rotate(R, x), torch.einsum("bij,bnj->bni", R, x), atol=1e-12)


def test_precision_survives_autocast() -> None:
    pose, points = random_pose(2).float(), torch.randn(2, 9, 3)
    plain = transform_points(pose, points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(transform_points(pose, points), plain)


def test_batch_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3, 3, 3\].*unsqueeze the points"):
        rotate(torch.ones(2, 3, 3, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="transform has shape"):
        invert_se3(torch.eye(3))
