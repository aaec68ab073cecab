"""Depth along the axis and along the ray, and which depth is valid."""

import torch

from vggrpo.geometry import (
    depth_ray_to_z,
    depth_z_to_ray,
    intrinsics_from_fov,
    median_depth,
    unproject,
    valid_depth,
)


def test_ray_depth_is_the_distance_of_the_point() -> None:
    K = intrinsics_from_fov(torch.tensor([0.8, 1.2], dtype=torch.float64), 6, 8)
    depth = 1 + torch.rand(2, 6, 8, dtype=torch.float64)
    along_ray = depth_z_to_ray(depth, K)
    assert torch.allclose(along_ray, unproject(depth, K).norm(dim=-1), atol=1e-12)
    assert torch.allclose(depth_ray_to_z(along_ray, K), depth, atol=1e-12)


def test_the_two_depths_agree_only_on_the_axis() -> None:
    K = intrinsics_from_fov(1.0, 5, 5)
    along_ray = depth_z_to_ray(torch.ones(5, 5), K)
    assert along_ray[2, 2] == 1
    assert (along_ray.flatten().sort().values[1:] > 1).all()


def test_valid_depth_is_finite_and_positive() -> None:
    depth = torch.tensor([1.0, 0.0, -1.0, torch.nan, torch.inf])
    assert valid_depth(depth).tolist() == [True, False, False, False, False]


def test_median_depth_ignores_what_is_not_valid() -> None:
    depth = torch.tensor([[1.0, 2, 3, 0, 0, 0], [5.0, torch.nan, 5, 5, 7, torch.inf], [0.0, 0, 0, 0, 0, 0]])
    result = median_depth(depth.reshape(3, 1, 2, 3))
    assert result[:2].tolist() == [2, 5]
    assert result[2].isnan()
