"""How well a latent geometry model agrees with its teacher, in units that people know."""

from dataclasses import replace

import torch
from torch import Tensor

from vggrpo.geometry import (
    SceneGeometry,
    masked_mean,
    median_depth,
    relative_rotation,
    rotate,
    safe_norm,
    so3_log,
    valid_depth,
)

STILL_PATH = 0.05
"""Shortest path, in median depths, that a translation error is divided by: a still camera has none."""
NEAREST_DEPTH = 1e-3
"""Smallest depth, in median depths, whose logarithm counts."""
SHORTEST_FOCAL = 1e-2
"""Smallest focal length, in raster sides, whose logarithm counts: a field of view of 179 degrees."""


def agreement(student: SceneGeometry, teacher: SceneGeometry) -> dict[str, Tensor]:
    """Errors of a student's scenes against its teacher's, per scene [B]; all lower is better.

    Pixels count where the teacher's depth is finite and above `NEAREST_DEPTH` median depths.

    - `depth_abs_rel`: mean |d - d*| / d*.
    - `depth_log`: mean |log d - log d*|.
    - `rotation_deg`: mean angle between the views' rotations relative to the first view, degrees.
    - `translation_error`: mean distance between the views' centres in the first camera's frame, divided by
      the length of the teacher's path (at least `STILL_PATH` median depths).
    - `focal_log`: mean |log f - log f*| over views and both axes.
    - `flow_epe`: mean |F - F*| over the later views and the reference pixels, scene units; only if both
      have flow.

    Raises:
        ValueError: if the scenes differ in shape, have fewer than two views, or the teacher sees nothing.
    """
    require_same_views(student, teacher)
    if teacher.num_views < 2:
        raise ValueError("the scenes have one view; agreement of cameras needs at least two")
    scale = scene_scale(teacher)
    seen = seen_pixels(teacher, scale)
    pixels = (1, 2, 3)
    rotation, centre = camera_errors_from_first(student, teacher)
    path = safe_norm(teacher.camera_to_world[..., :3, 3].diff(dim=1)).sum(dim=1)
    errors = {
        "depth_abs_rel": masked_mean(
            (student.depth_z - teacher.depth_z).abs() / teacher.depth_z, seen, pixels
        ),
        "depth_log": masked_mean((log_depth(student, scale) - log_depth(teacher, scale)).abs(), seen, pixels),
        "rotation_deg": rotation.mean(dim=1).rad2deg(),
        "translation_error": centre.mean(dim=1) / torch.maximum(path, STILL_PATH * scale),
        "focal_log": log_focal_difference(student, teacher).abs().flatten(1).mean(1),
    }
    if student.scene_flow_from_ref is not None and teacher.scene_flow_from_ref is not None:
        flow_error = safe_norm(student.scene_flow_from_ref - teacher.scene_flow_from_ref)[:, 1:]
        errors["flow_epe"] = masked_mean(flow_error, seen[:, :1].expand_as(flow_error), pixels)
    return errors


def agreement_where_seen(student: SceneGeometry, teacher: SceneGeometry) -> dict[str, Tensor]:
    """`agreement`, with NaN for the scenes in which the teacher sees no surface instead of an error.

    Raises:
        ValueError: if the scenes differ in shape, or have fewer than two views.
    """
    sighted = valid_depth(teacher.depth_z).flatten(1).any(dim=1)
    # Any depth will do for the others: what is computed from it is thrown away.
    depth = torch.where(sighted[:, None, None, None], teacher.depth_z, 1.0)
    errors = agreement(student, replace(teacher, depth_z=depth))
    return {name: torch.where(sighted, error, torch.nan) for name, error in errors.items()}


def scene_scale(scene: SceneGeometry) -> Tensor:
    """The scale of each scene [B]: its median valid depth, scene units.

    Raises:
        ValueError: if a scene has no valid depth at all.
    """
    scale = median_depth(scene.depth_z)
    if bool(scale.isnan().any()):
        blind = scale.isnan().nonzero().flatten().tolist()
        raise ValueError(
            f"the teacher sees no surface in scenes {blind} of the batch: no depth is finite and positive"
        )
    return scale


def seen_pixels(teacher: SceneGeometry, scale: Tensor) -> Tensor:
    """Where the teacher's depth can be learnt from, [B, T, H, W]: finite and above `NEAREST_DEPTH *
    scale`."""
    return valid_depth(teacher.depth_z) & (teacher.depth_z > _nearest(scale))


def log_depth(scene: SceneGeometry, scale: Tensor) -> Tensor:
    """log depth_z [B, T, H, W], floored at `NEAREST_DEPTH * scale` (scale [B]): networks may put a point
    behind."""
    return torch.maximum(scene.depth_z, _nearest(scale)).log()


def camera_errors_from_first(student: SceneGeometry, teacher: SceneGeometry) -> tuple[Tensor, Tensor]:
    """Angles (radians) and distances between the later cameras, each in its first camera's frame, [B, T-1]
    both."""
    rotations, centres = cameras_from_first(student)
    true_rotations, true_centres = cameras_from_first(teacher)
    return safe_norm(so3_log(relative_rotation(true_rotations, rotations))), safe_norm(centres - true_centres)


def cameras_from_first(scene: SceneGeometry) -> tuple[Tensor, Tensor]:
    """Rotations [B, T-1, 3, 3] and centres [B, T-1, 3] of all later views in the first camera's frame.

    They do not depend on what the model calls the world.
    """
    R, c = scene.camera_to_world[..., :3, :3], scene.camera_to_world[..., :3, 3]
    return relative_rotation(R[:, :1], R[:, 1:]), rotate(R[:, :1].mT, c[:, 1:] - c[:, :1])


def log_focal_difference(student: SceneGeometry, teacher: SceneGeometry) -> Tensor:
    """log(f / f*) of both axes, [B, T, 2]."""
    return _log_focal(student) - _log_focal(teacher)


def require_same_views(student: SceneGeometry, teacher: SceneGeometry) -> None:
    """Raises ValueError unless both scenes have the same batch, views and raster."""
    if student.depth_z.shape != teacher.depth_z.shape:
        raise ValueError(
            f"the student's depth has shape {list(student.depth_z.shape)}, the teacher's "
            f"{list(teacher.depth_z.shape)}; compare scenes of the same clips, views and raster"
        )


def _log_focal(scene: SceneGeometry) -> Tensor:
    focal = scene.intrinsics.diagonal(dim1=-2, dim2=-1)[..., :2]
    # A pinhole fitted to the rays of an untrained network may have any focal length, even a negative one.
    return focal.clamp_min(SHORTEST_FOCAL * max(scene.height, scene.width)).log()


def _nearest(scale: Tensor) -> Tensor:
    return (NEAREST_DEPTH * scale)[:, None, None, None]
