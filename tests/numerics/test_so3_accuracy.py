"""SO(3) exponential, logarithm and quaternions against scipy in float64, and their gradients."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from vggrpo.geometry import (
    matrix_to_quat_wxyz,
    matrix_to_quat_xyzw,
    quat_wxyz_to_matrix,
    quat_xyzw_to_matrix,
    so3_exp,
    so3_log,
)

ANGLES = [0.0, 1e-14, 1e-9, 1e-5, 9.9e-3, 1.01e-2, 0.3, 1.5, 3.0]
NEAR_PI = [math.pi - gap for gap in (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)]


def rotation_vectors(angle: float, count: int = 300) -> torch.Tensor:
    axes = torch.randn(count, 3, dtype=torch.float64)
    axes[:6] = torch.cat([torch.eye(3), -torch.eye(3)])
    return angle * axes / axes.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("angle", ANGLES + NEAR_PI)
def test_exponential_and_logarithm_against_scipy(angle: float) -> None:
    w = rotation_vectors(angle)
    reference = Rotation.from_rotvec(w.numpy())
    R = torch.from_numpy(reference.as_matrix())
    assert (so3_exp(w) - R).abs().max() < 1e-14
    assert (so3_log(R) - torch.from_numpy(reference.as_rotvec())).abs().max() < 1e-6
    assert (so3_log(so3_exp(w)) - w).abs().max() < 1e-6 * max(angle, 1e-6)


def test_at_pi_one_of_the_two_right_vectors_is_returned() -> None:
    w = rotation_vectors(math.pi)
    result = so3_log(so3_exp(w))
    assert torch.minimum((result - w).abs().amax(-1), (result + w).abs().amax(-1)).max() < 1e-7


@pytest.mark.parametrize(("angle", "tolerance"), [(1e-6, 1e-12), (1e-3, 1e-9), (1.0, 1e-6), (3.1415, 2e-6)])
def test_float32_keeps_its_precision_near_zero_and_near_pi(angle: float, tolerance: float) -> None:
    w = rotation_vectors(angle)
    R = torch.from_numpy(Rotation.from_rotvec(w.numpy()).as_matrix()).float()
    assert (so3_log(R).double() - w).abs().max() < tolerance


def test_quaternion_orders_against_scipy() -> None:
    R = torch.from_numpy(Rotation.random(500, random_state=0).as_matrix())
    xyzw = torch.from_numpy(Rotation.from_matrix(R.numpy()).as_quat(canonical=True))
    assert torch.allclose(matrix_to_quat_xyzw(R), xyzw, atol=1e-12)
    assert torch.allclose(matrix_to_quat_wxyz(R), xyzw[:, [3, 0, 1, 2]], atol=1e-12)
    assert torch.allclose(quat_xyzw_to_matrix(3 * xyzw), R, atol=1e-12)
    assert torch.allclose(quat_wxyz_to_matrix(xyzw[:, [3, 0, 1, 2]]), R, atol=1e-12)


@pytest.mark.parametrize("angle", [1e-3, 0.02, 1.0, 3.0, math.pi - 1e-3])
def test_gradients_against_finite_differences(angle: float) -> None:
    w = rotation_vectors(angle, count=7)[-1].requires_grad_()
    assert torch.autograd.gradcheck(so3_exp, (w,))
    assert torch.autograd.gradcheck(lambda w: so3_log(so3_exp(w)), (w,), eps=1e-7, atol=1e-5)
    R = so3_exp(w.detach()).requires_grad_()
    assert torch.autograd.gradcheck(lambda R: (matrix_to_quat_wxyz(R), so3_log(R)), (R,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_at_the_identity_and_at_half_turns_are_finite(dtype: torch.dtype) -> None:
    half_turns = torch.tensor([[-1.0, -1, 1], [-1, 1, -1], [1, -1, -1]]).diag_embed()
    R = torch.cat([torch.eye(3)[None], half_turns]).to(dtype).requires_grad_()
    so3_log(R).sum().backward()
    assert torch.isfinite(R.grad).all()
    w = torch.zeros(3, dtype=dtype, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda w: so3_log(so3_exp(w)), w)
    assert torch.allclose(jacobian, torch.eye(3, dtype=dtype))
