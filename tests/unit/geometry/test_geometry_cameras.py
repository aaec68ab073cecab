"""Projection, unprojection and intrinsics."""

import math

import pytest
import torch

from vggrpo.geometry import (
    camera_rays,
    fit_intrinsics,
    intrinsics_from_fov,
    pixel_grid,
    project,
    scale_intrinsics,
    se3_from_rt,
    so3_exp,
    unproject,
)

DOUBLE = torch.float64


def random_cameras(*batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    K = torch.eye(3, dtype=DOUBLE).repeat(*batch, 1, 1)
    K[..., 0, 0] = 40 + 10 * torch.rand(batch, dtype=DOUBLE)
    K[..., 1, 1] = 40 + 10 * torch.rand(batch, dtype=DOUBLE)
    K[..., 0, 1] = torch.rand(batch, dtype=DOUBLE)
    K[..., 0, 2], K[..., 1, 2] = 31.2, 23.7
    pose = se3_from_rt(so3_exp(torch.randn(*batch, 3, dtype=DOUBLE)), torch.randn(*batch, 3, dtype=DOUBLE))
    return K, pose


def test_pixel_grid_starts_at_the_first_centre() -> None:
    grid = pixel_grid(3, 4)
    assert grid.shape == (3, 4, 2)
    assert grid[0, 0].tolist() == [0, 0]
    assert grid[2, 3].tolist() == [3, 2]


def test_projection_of_unprojected_depth_is_the_pixel_grid() -> None:
    K, pose = random_cameras(2, 3)
    depth = 1 + torch.rand(2, 3, 6, 7, dtype=DOUBLE)
    uv, z = project(unproject(depth, K, pose), K, pose)
    assert torch.allclose(uv, pixel_grid(6, 7, dtype=DOUBLE).expand_as(uv), atol=1e-9)
    assert torch.allclose(z, depth, atol=1e-12)


def test_projection_against_homogeneous_matrices() -> None:
    K, pose = random_cameras(2, 3)
    points = torch.randn(2, 1, 11, 3, dtype=DOUBLE)
    uv, z = project(points, K, pose)
    world_to_camera = torch.linalg.inv(pose)[..., :3, :]
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    expected = torch.einsum("bvij,bvjk,bvnk->bvni", K, world_to_camera, homogeneous.expand(2, 3, 11, 4))
    front = z > 1e-3
    assert torch.allclose(z, expected[..., 2], atol=1e-12)
    assert torch.allclose(uv[front], (expected[..., :2] / expected[..., 2:])[front], atol=1e-9)


def test_a_point_on_the_optical_axis_hits_the_principal_point() -> None:
    K = intrinsics_from_fov(1.0, 5, 7)
    uv, z = project(torch.tensor([[0.0, 0, 2]]), K, torch.eye(4))
    assert uv.tolist() == [[3, 2]]
    assert z.tolist() == [2]


def test_points_at_and_behind_the_camera_are_finite_forward_and_backward() -> None:
    points = torch.tensor([[0.3, 0.2, 0.0], [1.0, 1.0, -2.0], [0.0, 0.0, 0.0]], requires_grad=True)
    uv, z = project(points, torch.eye(3) * 50, torch.eye(4))
    (uv.sum() + z.sum()).backward()
    assert torch.isfinite(uv).all()
    assert torch.isfinite(points.grad).all()
    assert z.tolist() == [0, -2, 0]


def test_projection_and_unprojection_pass_gradcheck() -> None:
    K, pose = random_cameras(1)
    depth = (1 + torch.rand(1, 3, 4, dtype=DOUBLE)).requires_grad_()
    points = (torch.randn(1, 5, 3, dtype=DOUBLE) + pose[:, :3, 2] * 4 + pose[:, :3, 3]).requires_grad_()
    assert torch.autograd.gradcheck(project, (points, K.requires_grad_(), pose.requires_grad_()))
    assert torch.autograd.gradcheck(unproject, (depth, K, pose))


def test_far_from_the_origin_float32_still_knows_its_pixel() -> None:
    K = intrinsics_from_fov(1.0, 48, 64)
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([1000.0, -2000.0, 500.0])
    uv, _ = project(unproject(torch.full((48, 64), 4.0), K, pose), K, pose)
    assert (uv - pixel_grid(48, 64)).abs().max() < 0.01


def test_intrinsics_from_fov_see_the_edges_at_half_the_angle() -> None:
    K = intrinsics_from_fov(math.radians(60), 48, 64)
    left = camera_rays(K, 48, 64)[0, 0, 0] - 0.5 / K[0, 0]
    assert math.isclose(math.degrees(math.atan(-float(left))), 30, abs_tol=1e-4)
    assert intrinsics_from_fov(torch.tensor([0.5, 1.0]), 4, 4).shape == (2, 3, 3)
    with pytest.raises(ValueError, match="radians"):
        intrinsics_from_fov(60.0, 48, 64)


def test_scaled_intrinsics_keep_every_ray() -> None:
    K, _ = random_cameras()
    half = scale_intrinsics(K, (48, 64), (24, 32))
    rays = camera_rays(K, 48, 64)
    centres = 0.25 * (rays[0::2, 0::2] + rays[1::2, 0::2] + rays[0::2, 1::2] + rays[1::2, 1::2])
    assert torch.allclose(camera_rays(half, 24, 32), centres, atol=1e-12)
    assert torch.allclose(scale_intrinsics(half, (24, 32), (48, 64)), K, atol=1e-12)


def test_fitted_intrinsics_recover_the_camera() -> None:
    K, _ = random_cameras(3)
    K[..., 0, 1] = 0
    rays = camera_rays(K, 10, 12)
    lengths = 0.5 + torch.rand(3, 10, 12, 1, dtype=DOUBLE)
    assert torch.allclose(fit_intrinsics(rays * lengths), K, atol=1e-9)


def test_fitted_intrinsics_are_the_least_squares_solution() -> None:
    rays = camera_rays(random_cameras()[0], 6, 8) + 0.05 * torch.randn(6, 8, 3, dtype=DOUBLE)
    slope = (rays[..., 0] / rays[..., 2]).flatten()
    design = torch.stack([slope, torch.ones_like(slope)], dim=-1)
    focal, centre = torch.linalg.lstsq(
        design, pixel_grid(6, 8, dtype=DOUBLE)[..., :1].reshape(-1, 1)
    ).solution
    K = fit_intrinsics(rays)
    assert torch.allclose(K[0, 0], focal)
    assert torch.allclose(K[0, 2], centre)


def test_fitting_is_differentiable_and_ignores_rays_that_do_not_face_forward() -> None:
    rays = camera_rays(random_cameras()[0], 4, 5).detach()
    rays[0, 0] = torch.tensor([1.0, 1.0, -1.0])
    rays.requires_grad_()
    assert torch.autograd.gradcheck(fit_intrinsics, (rays,))
    nothing = torch.zeros(4, 5, 3, requires_grad=True)
    K = fit_intrinsics(nothing)
    K.sum().backward()
    assert K[0, 0] == 0
    assert torch.isfinite(nothing.grad).all()
