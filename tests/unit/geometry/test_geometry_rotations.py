"""Quaternion orders, conventions and argument checks; accuracy is tested under tests/numerics."""

import math

import pytest
import torch

from vggrpo.geometry import (
    matrix_to_quat_wxyz,
    matrix_to_quat_xyzw,
    quat_wxyz_to_matrix,
    quat_xyzw_to_matrix,
    relative_rotation,
    skew,
    so3_exp,
    so3_log,
)

QUARTER_TURN_ABOUT_Z = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
HALF = math.sqrt(0.5)


def test_skew_is_the_cross_product() -> None:
    a, b = torch.randn(7, 3), torch.randn(7, 3)
    assert torch.allclose((skew(a) @ b[..., None]).squeeze(-1), torch.linalg.cross(a, b), atol=1e-6)


def test_a_quarter_turn_in_every_representation() -> None:
    w = torch.tensor([0.0, 0, math.pi / 2])
    assert torch.allclose(so3_exp(w), QUARTER_TURN_ABOUT_Z, atol=1e-6)
    assert torch.allclose(so3_log(QUARTER_TURN_ABOUT_Z), w, atol=1e-6)
    assert torch.allclose(matrix_to_quat_wxyz(QUARTER_TURN_ABOUT_Z), torch.tensor([HALF, 0, 0, HALF]))
    assert torch.allclose(matrix_to_quat_xyzw(QUARTER_TURN_ABOUT_Z), torch.tensor([0, 0, HALF, HALF]))
    assert torch.allclose(quat_wxyz_to_matrix(torch.tensor([1.0, 0, 0, 1])), QUARTER_TURN_ABOUT_Z, atol=1e-6)
    assert torch.allclose(quat_xyzw_to_matrix(torch.tensor([0.0, 0, 2, 2])), QUARTER_TURN_ABOUT_Z, atol=1e-6)


def test_quaternion_and_its_negative_are_the_same_rotation() -> None:
    q = torch.randn(20, 4)
    assert torch.allclose(quat_xyzw_to_matrix(q), quat_xyzw_to_matrix(-q))


def test_quaternions_of_matrices_have_no_negative_scalar_part() -> None:
    R = so3_exp(torch.randn(200, 3) * 2)
    assert (matrix_to_quat_wxyz(R)[:, 0] >= 0).all()
    assert torch.allclose(quat_wxyz_to_matrix(matrix_to_quat_wxyz(R)), R, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_turns_about_the_axes(axis: int) -> None:
    w = torch.zeros(3)
    w[axis] = math.pi
    R = torch.diag(torch.tensor([1.0 if k == axis else -1.0 for k in range(3)]))
    assert torch.allclose(so3_log(R).abs(), w, atol=1e-6)
    assert torch.allclose(so3_exp(w), R, atol=1e-6)


def test_relative_rotation_of_equal_rotations_is_exactly_no_turn() -> None:
    R = so3_exp(torch.randn(500, 3) * 2)
    assert (so3_log(relative_rotation(R, R)) == 0).all()


def test_relative_rotation_is_the_transposed_product() -> None:
    R_a, R_b = so3_exp(torch.randn(9, 3)), so3_exp(torch.randn(9, 3))
    assert torch.allclose(relative_rotation(R_a, R_b), R_a.mT @ R_b, atol=1e-6)


def test_wrong_shapes_and_dtypes_are_named() -> None:
    with pytest.raises(ValueError, match=r"w has shape \[4\].*\[3\]"):
        so3_exp(torch.ones(4))
    with pytest.raises(ValueError, match=r"R has shape \[4, 4\].*\[3, 3\]"):
        so3_log(torch.eye(4))
    with pytest.raises(ValueError, match=r"quat_xyzw has dtype torch\.int64"):
        quat_xyzw_to_matrix(torch.tensor([0, 0, 0, 1]))
