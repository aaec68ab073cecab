"""Rotation matrices, rotation vectors and quaternions. Every quaternion carries its order in the name."""

import torch
from torch import Tensor

from vggrpo.geometry._checks import require_trailing


def skew(w: Tensor) -> Tensor:
    """Cross-product matrix: [..., 3] -> [..., 3, 3] with skew(w) @ x = w x x."""
    require_trailing("w", w, (3,))
    x, y, z = w.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).unflatten(-1, (3, 3))


def so3_exp(w: Tensor) -> Tensor:
    """Rotation vector [..., 3] in radians to rotation matrix [..., 3, 3] (Rodrigues).

    R = I + sin(a)/a [w] + (1 - cos a)/a^2 [w]^2 with a = |w|; smooth at w = 0.
    """
    require_trailing("w", w, (3,))
    square = (w * w).sum(dim=-1)[..., None, None]
    # Here the Taylor series is exact to the dtype's precision and, unlike a = sqrt(square), differentiable.
    small = square < 1e-4
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    first = torch.where(small, 1 - square / 6 + square**2 / 120 - square**3 / 5040, angle.sin() / angle)
    half = (angle / 2).sin() / (angle / 2)
    second = torch.where(small, 0.5 - square / 24 + square**2 / 720 - square**3 / 40320, half**2 / 2)
    K = skew(w)
    return torch.eye(3, dtype=w.dtype, device=w.device) + first * K + second * (K @ K)


def so3_log(R: Tensor) -> Tensor:
    """Rotation matrix [..., 3, 3] to rotation vector [..., 3] in radians, of norm at most pi.

    Goes through the unit quaternion, which is well conditioned at every angle: accurate near 0 and near pi,
    with finite gradients at the identity. At pi the two opposite vectors are both right; one is returned.
    """
    q = matrix_to_quat_wxyz(R)
    w, v = q[..., :1], q[..., 1:]
    square = (v * v).sum(dim=-1, keepdim=True)
    small = square < 1e-6
    sine = torch.where(small, torch.ones_like(square), square).sqrt()
    # scale = angle / sin(angle / 2); where v is small, w is close to 1 and the series of atan is exact.
    ratio = torch.where(small, w, torch.ones_like(w))
    tangent = square / ratio**2
    series = 2 / ratio * (1 - tangent / 3 + tangent**2 / 5)
    scale = torch.where(
        small, series, 2 * torch.atan2(sine, torch.where(small, torch.ones_like(w), w)) / sine
    )
    return scale * v


def quat_wxyz_to_matrix(quat_wxyz: Tensor) -> Tensor:
    """Quaternion [..., 4], scalar first, of any non-zero norm, to rotation matrix [..., 3, 3]."""
    require_trailing("quat_wxyz", quat_wxyz, (4,))
    w, x, y, z = quat_wxyz.unbind(-1)
    two_s = 2 / (quat_wxyz * quat_wxyz).sum(dim=-1)
    rows = [
        1 - two_s * (y * y + z * z),
        two_s * (x * y - z * w),
        two_s * (x * z + y * w),
        two_s * (x * y + z * w),
        1 - two_s * (x * x + z * z),
        two_s * (y * z - x * w),
        two_s * (x * z - y * w),
        two_s * (y * z + x * w),
        1 - two_s * (x * x + y * y),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quat_xyzw_to_matrix(quat_xyzw: Tensor) -> Tensor:
    """Quaternion [..., 4], scalar last, of any non-zero norm, to rotation matrix [..., 3, 3]."""
    require_trailing("quat_xyzw", quat_xyzw, (4,))
    return quat_wxyz_to_matrix(quat_xyzw.roll(1, dims=-1))


def matrix_to_quat_wxyz(R: Tensor) -> Tensor:
    """Rotation matrix [..., 3, 3] to unit quaternion [..., 4], scalar first and not negative.

    4 q q^T is linear in R. Its row with the largest diagonal entry, normalised, is q up to sign: no square
    root is taken of anything that can vanish, so the gradient is finite everywhere.
    """
    require_trailing("R", R, (3, 3))
    (r00, r01, r02), (r10, r11, r12), (r20, r21, r22) = (row.unbind(-1) for row in R.unbind(-2))
    wx, wy, wz = r21 - r12, r02 - r20, r10 - r01
    xy, xz, yz = r10 + r01, r02 + r20, r21 + r12
    diagonal = [1 + r00 + r11 + r22, 1 + r00 - r11 - r22, 1 - r00 + r11 - r22, 1 - r00 - r11 + r22]
    entries = [
        diagonal[0],
        wx,
        wy,
        wz,
        wx,
        diagonal[1],
        xy,
        xz,
        wy,
        xy,
        diagonal[2],
        yz,
        wz,
        xz,
        yz,
        diagonal[3],
    ]
    outer = torch.stack(entries, dim=-1).unflatten(-1, (4, 4))
    best = torch.stack(diagonal, dim=-1).detach().argmax(dim=-1)
    row = outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    row = row * torch.where(row[..., :1] < 0, -1.0, 1.0)
    return row / (row * row).sum(dim=-1, keepdim=True).sqrt()


def matrix_to_quat_xyzw(R: Tensor) -> Tensor:
    """Rotation matrix [..., 3, 3] to unit quaternion [..., 4], scalar last and not negative."""
    return matrix_to_quat_wxyz(R).roll(-1, dims=-1)


def relative_rotation(R_a: Tensor, R_b: Tensor) -> Tensor:
    """R_a^T R_b, [..., 3, 3]: the rotation from b's axes to a's.

    Written as three outer products: equal arguments give an exactly symmetric matrix, hence a rotation vector
    of exactly zero, and reduced-precision matrix products (TF32) cannot touch it.
    """
    require_trailing("R_a", R_a, (3, 3))
    require_trailing("R_b", R_b, (3, 3))
    x, y, z = (R_a[..., k, :, None] * R_b[..., k, None, :] for k in range(3))
    return x + y + z
