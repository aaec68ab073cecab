"""From VGGT's prediction to a `SceneGeometry`: camera-to-world, intrinsics from the field of view, points."""

import torch
from torch import Tensor

from vggrpo.backbones.anchoring import cameras_from_first_view
from vggrpo.backbones.vggt.prediction import VGGTPrediction
from vggrpo.geometry import (
    SceneGeometry,
    invert_se3,
    pixel_grid,
    quat_xyzw_to_matrix,
    se3_from_rt,
    transform_points,
)


def scene_from_prediction(prediction: VGGTPrediction, anchor_first_view: bool = True) -> SceneGeometry:
    """The scene that a prediction describes, in VGGT's own units: its scale is arbitrary. Differentiable.

    - VGGT predicts world-to-camera; it is inverted here.
    - `world_points` are the predicted depth, unprojected by the predicted cameras, and `confidence` is the
      depth's. VGGT's point head is not used: its authors find its points less accurate, and they do not
      project onto their own pixels, which the reprojection reward would take for an inconsistency of the
      video.
    - `intrinsics` have focal lengths H / (2 tan(fov_y / 2)) and W / (2 tan(fov_x / 2)) and the principal
      point (W / 2, H / 2) on integer pixel coordinates, which is what VGGT was trained on. A field of view
      of 0 belongs to no camera: its focal length is 0, which rewards take for a failure.
    - The network's world is view 0's camera only by training. With `anchor_first_view` cameras and points
      are expressed relative to the camera predicted for view 0, which makes it the identity exactly.
    - There is no scene flow: VGGT takes every scene for a static one.
    """
    with torch.autocast(prediction.log_depth.device.type, enabled=False):
        return _scene(prediction, anchor_first_view)


def _scene(prediction: VGGTPrediction, anchor_first_view: bool) -> SceneGeometry:
    rotation = quat_xyzw_to_matrix(prediction.quat_xyzw)
    camera_to_world = invert_se3(se3_from_rt(rotation, prediction.translation))
    if anchor_first_view:
        camera_to_world = cameras_from_first_view(camera_to_world)
    depth_z = prediction.depth_z
    height, width = depth_z.shape[-2:]
    half_tangent = (prediction.fov / 2).tan()
    points_camera = depth_z[..., None] * _rays(half_tangent, height, width)
    return SceneGeometry(
        camera_to_world=camera_to_world,
        intrinsics=_intrinsics(half_tangent, height, width),
        depth_z=depth_z,
        world_points=transform_points(camera_to_world, points_camera),
        confidence=prediction.depth_confidence,
    )


def _rays(half_tangent: Tensor, height: int, width: int) -> Tensor:
    """K^-1 (u, v, 1) of all pixels, [B, T, H, W, 3]; finite even where the field of view is 0.

    `half_tangent` [B, T, 2] is tan(fov / 2), vertical and horizontal.
    """
    pixels = pixel_grid(height, width, device=half_tangent.device, dtype=half_tangent.dtype)
    centre = half_tangent.new_tensor([width / 2, height / 2])
    slopes = (pixels - centre) / centre * half_tangent.flip(-1)[:, :, None, None]
    return torch.cat([slopes, torch.ones_like(slopes[..., :1])], dim=-1)


def _intrinsics(half_tangent: Tensor, height: int, width: int) -> Tensor:
    """K [B, T, 3, 3] of tan(fov / 2) [B, T, 2], vertical and horizontal."""
    sees = half_tangent != 0
    centre = half_tangent.new_tensor([width / 2, height / 2])
    # The inner `where` keeps the gradient of the other branch finite.
    focal = torch.where(sees, 1 / torch.where(sees, half_tangent, 1.0), 0.0).flip(-1) * centre
    principal = centre.expand_as(focal)
    (fx, fy), (cx, cy) = focal.unbind(-1), principal.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
