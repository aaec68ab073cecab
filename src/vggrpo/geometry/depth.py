"""The two depths, never confused: `depth_z` along the optical axis (canonical) and `depth_along_ray`."""

import torch
from torch import Tensor

from vggrpo.geometry.cameras import camera_rays
from vggrpo.geometry.numerics import masked_median


def depth_z_to_ray(depth_z: Tensor, intrinsics: Tensor) -> Tensor:
    """Depth along the optical axis to distance from the camera centre, [..., H, W] under K [..., 3, 3]."""
    return depth_z * _ray_length(depth_z, intrinsics)


def depth_ray_to_z(depth_along_ray: Tensor, intrinsics: Tensor) -> Tensor:
    """Distance from the camera centre to depth along the optical axis, [..., H, W] under K [..., 3, 3]."""
    return depth_along_ray / _ray_length(depth_along_ray, intrinsics)


def _ray_length(depth: Tensor, intrinsics: Tensor) -> Tensor:
    rays = camera_rays(intrinsics, depth.shape[-2], depth.shape[-1])
    return (rays * rays).sum(dim=-1).sqrt()


def valid_depth(depth_z: Tensor) -> Tensor:
    """True where a pixel sees a surface: finite and positive depth."""
    return torch.isfinite(depth_z) & (depth_z > 0)


def median_depth(depth_z: Tensor) -> Tensor:
    """Median of the valid depths of each clip, [B, T, H, W] -> [B]: the scene's scale. NaN without any."""
    return masked_median(depth_z, valid_depth(depth_z))
