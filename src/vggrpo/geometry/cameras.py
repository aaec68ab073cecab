"""The pinhole camera: OpenCV axes, intrinsics in pixels, integer pixel coordinates at pixel centres."""

import torch
from torch import Tensor

from vggrpo.geometry._checks import require_trailing
from vggrpo.geometry.poses import expand_over_grid, rotate, transform_points

MIN_PROJECTION_DEPTH = 1e-6


def pixel_grid(
    height: int,
    width: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Pixel coordinates (u, v) = (column, row) of all pixel centres, [H, W, 2]; the first is (0, 0)."""
    v, u = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype),
        torch.arange(width, device=device, dtype=dtype),
        indexing="ij",
    )
    return torch.stack([u, v], dim=-1)


def camera_rays(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """K^-1 (u, v, 1): camera-frame rays with z = 1 through all pixel centres, [..., 3, 3] -> [..., H, W, 3].

    Times `depth_z` they are the surface points; normalised they are the directions of `depth_along_ray`.
    """
    require_trailing("intrinsics", intrinsics, (3, 3))
    u, v = pixel_grid(height, width, device=intrinsics.device, dtype=intrinsics.dtype).unbind(-1)
    K = intrinsics[..., None, None, :, :]
    y = (v - K[..., 1, 2]) / K[..., 1, 1]
    x = (u - K[..., 0, 2] - K[..., 0, 1] * y) / K[..., 0, 0]
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def unproject(depth_z: Tensor, intrinsics: Tensor, camera_to_world: Tensor | None = None) -> Tensor:
    """Points [..., H, W, 3] of a depth map, in world coordinates, or in the camera's own without a pose.

    Args:
        depth_z: [..., H, W], along the optical axis.
        intrinsics: [..., 3, 3].
        camera_to_world: [..., 4, 4].
    """
    points = depth_z[..., None] * camera_rays(intrinsics, depth_z.shape[-2], depth_z.shape[-1])
    return points if camera_to_world is None else transform_points(camera_to_world, points)


def apply_intrinsics(points_camera: Tensor, intrinsics: Tensor) -> Tensor:
    """Pixel coordinates (u, v) [..., 2] of camera-frame points [*batch, *grid, 3] under K [*batch, 3, 3]."""
    require_trailing("points_camera", points_camera, (3,))
    require_trailing("intrinsics", intrinsics, (3, 3))
    x, y, z = points_camera.unbind(-1)
    K = expand_over_grid(intrinsics, points_camera.ndim - 1, 2)
    # Behind the camera a pixel has no meaning; dividing by 1 there keeps values and gradients finite.
    z = torch.where(z > MIN_PROJECTION_DEPTH, z, torch.ones_like(z))
    x, y = x / z, y / z
    u = K[..., 0, 0] * x + K[..., 0, 1] * y + K[..., 0, 2]
    v = K[..., 1, 1] * y + K[..., 1, 2]
    return torch.stack([u, v], dim=-1)


def project(points_world: Tensor, intrinsics: Tensor, camera_to_world: Tensor) -> tuple[Tensor, Tensor]:
    """World points to pixels (u, v) [..., 2] and depth z [...] in each camera.

    Cameras [*batch, ...] apply to points [*batch, *grid, 3]; batch dimensions broadcast: points [B, 1, N, 3]
    with cameras [B, V, 4, 4] give [B, V, N, 2]. Where z <= MIN_PROJECTION_DEPTH (at or behind the
    camera's plane) uv is finite but without meaning: test z.
    """
    require_trailing("points_world", points_world, (3,))
    require_trailing("camera_to_world", camera_to_world, (4, 4))
    centre = expand_over_grid(camera_to_world[..., :3, 3], points_world.ndim - 1, 1)
    points_camera = rotate(camera_to_world[..., :3, :3].mT, points_world - centre)
    return apply_intrinsics(points_camera, intrinsics), points_camera[..., 2]


def intrinsics_from_fov(fov_x: Tensor | float, height: int, width: int) -> Tensor:
    """Intrinsics [..., 3, 3] of square pixels with the principal point in the middle of the image.

    Args:
        fov_x: horizontal field of view between the image's outer edges in radians, [...] or a number.
    """
    fov = torch.as_tensor(fov_x)
    fov = fov if fov.is_floating_point() else fov.to(torch.get_default_dtype())
    if not bool(((fov > 0) & (fov < torch.pi)).all()):
        raise ValueError(
            f"fov_x is {fov_x}, but radians in (0, pi) were expected; degrees need math.radians(fov_x)"
        )
    focal = 0.5 * width / (0.5 * fov).tan()
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    cx, cy = one * (0.5 * (width - 1)), one * (0.5 * (height - 1))
    return torch.stack([focal, zero, cx, zero, focal, cy, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def scale_intrinsics(intrinsics: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Tensor:
    """Intrinsics [..., 3, 3] after resizing the whole image from (H, W) to (H', W').

    Pixel centres are integers, so the image's corner is at -1/2: u' = s (u + 1/2) - 1/2.
    """
    require_trailing("intrinsics", intrinsics, (3, 3))
    sx, sy = to_hw[1] / from_hw[1], to_hw[0] / from_hw[0]
    scale = intrinsics.new_tensor([[sx, sx, sx], [1.0, sy, sy], [1.0, 1.0, 1.0]])
    shift = intrinsics.new_tensor([[0.0, 0.0, 0.5 * (sx - 1)], [0.0, 0.0, 0.5 * (sy - 1)], [0.0, 0.0, 0.0]])
    return intrinsics * scale + shift


def fit_intrinsics(rays: Tensor, min_cosine: float = 0.05) -> Tensor:
    """Least-squares pinhole intrinsics [..., 3, 3] of camera-frame rays [..., H, W, 3] of any length.

    Solves u = cx + fx rx/rz over the columns and v = cy + fy ry/rz over the rows, on integer pixel
    coordinates. Differentiable. Rays at more than arccos(min_cosine) from the optical axis are left out; if
    fewer than two columns or rows remain, the focal length is 0, which no camera has.
    """
    require_trailing("rays", rays, (3,))
    height, width = rays.shape[-3:-1]
    ahead = rays[..., 2] > min_cosine * (rays.detach() ** 2).sum(dim=-1).sqrt()
    z = torch.where(ahead, rays[..., 2], torch.ones_like(rays[..., 2]))
    slopes = torch.where(ahead[..., None], rays[..., :2] / z[..., None], 0.0)
    pixels = pixel_grid(height, width, device=rays.device, dtype=rays.dtype)
    weight = ahead.to(rays.dtype)[..., None]
    count = weight.sum(dim=(-3, -2)).clamp_min(1)
    mean_slope = (weight * slopes).sum(dim=(-3, -2)) / count
    mean_pixel = (weight * pixels).sum(dim=(-3, -2)) / count
    slope_offset = slopes - mean_slope[..., None, None, :]
    pixel_offset = pixels - mean_pixel[..., None, None, :]
    covariance = (weight * slope_offset * pixel_offset).sum(dim=(-3, -2)) / count
    variance = (weight * slope_offset**2).sum(dim=(-3, -2)) / count
    focal = covariance / variance.clamp_min(torch.finfo(rays.dtype).tiny)
    principal = mean_pixel - focal * mean_slope
    (fx, fy), (cx, cy) = focal.unbind(-1), principal.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
