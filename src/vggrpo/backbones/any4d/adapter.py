"""From Any4D's prediction to a `SceneGeometry`: z-depth, pinhole intrinsics, camera-to-world, scene units."""

import torch

from vggrpo.backbones.anchoring import cameras_from_first_view
from vggrpo.backbones.any4d.prediction import Any4DPrediction
from vggrpo.geometry import (
    SceneGeometry,
    fit_intrinsics,
    quat_xyzw_to_matrix,
    rotate,
    se3_from_rt,
    transform_points,
)


def scene_from_prediction(prediction: Any4DPrediction, anchor_first_view: bool = True) -> SceneGeometry:
    """The scene that a prediction describes, in the network's metric units. Differentiable.

    - `depth_z` and `world_points` are the predicted rays times the predicted distances (times the metric
      scale, here and nowhere else), moved by the predicted cameras: what the network was trained on.
    - `depth_z` is above 0 at every pixel: the network's own mask of what it can tell (sky, glass) is not
      applied. `confidence` is what says how far to trust a pixel.
    - `intrinsics` are not predicted. They are the least-squares pinhole of the predicted rays, so a point
      projects into its own view to within the residual of that fit, not exactly onto its pixel.
    - The network's world is view 0's camera only by training. With `anchor_first_view` cameras, points and
      flow are expressed relative to the camera predicted for view 0, which makes it the identity exactly.
    """
    with torch.autocast(prediction.log_depth.device.type, enabled=False):
        return _scene(prediction, anchor_first_view)


def _scene(prediction: Any4DPrediction, anchor_first_view: bool) -> SceneGeometry:
    scale = prediction.scale
    rotation = quat_xyzw_to_matrix(prediction.quat_xyzw)
    camera_to_world = se3_from_rt(rotation, prediction.translation * scale[:, None, None])
    flow = prediction.scene_flow * scale[:, None, None, None, None]
    if anchor_first_view:
        flow = rotate(camera_to_world[:, :1, :3, :3].mT, flow)
        camera_to_world = cameras_from_first_view(camera_to_world)

    rays = prediction.ray_directions
    points_camera = rays * (prediction.depth_along_ray * scale[:, None, None, None])[..., None]
    return SceneGeometry(
        camera_to_world=camera_to_world,
        intrinsics=fit_intrinsics(rays),
        depth_z=points_camera[..., 2],
        world_points=transform_points(camera_to_world, points_camera),
        confidence=prediction.confidence,
        scene_flow_from_ref=flow,
    )
