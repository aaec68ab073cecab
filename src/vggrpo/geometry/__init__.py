"""Cameras, rotations, depth, point rendering and trajectories. Depends on torch only."""

from vggrpo.geometry.camera_paths import CAMERA_PATHS, dolly, orbit, pan, resample_path, truck
from vggrpo.geometry.cameras import (
    apply_intrinsics,
    camera_rays,
    fit_intrinsics,
    intrinsics_from_fov,
    pixel_grid,
    project,
    scale_intrinsics,
    unproject,
)
from vggrpo.geometry.depth import depth_ray_to_z, depth_z_to_ray, median_depth, valid_depth
from vggrpo.geometry.dynamics import static_mask_from_flow, with_static_mask
from vggrpo.geometry.epipolar import (
    essential_matrix,
    fundamental_matrix,
    sampson_distance,
    symmetric_epipolar_distance,
)
from vggrpo.geometry.numerics import lower_quantile, masked_mean, masked_median, safe_norm
from vggrpo.geometry.poses import invert_se3, relative_pose, rotate, se3_from_rt, transform_points
from vggrpo.geometry.rendering import PointRender, render_depth
from vggrpo.geometry.rotations import (
    matrix_to_quat_wxyz,
    matrix_to_quat_xyzw,
    quat_wxyz_to_matrix,
    quat_xyzw_to_matrix,
    relative_rotation,
    skew,
    so3_exp,
    so3_log,
)
from vggrpo.geometry.scene import SceneGeometry
from vggrpo.geometry.trajectories import (
    angular_velocity,
    camera_centres,
    difference,
    linear_velocity,
    path_length,
)

__all__ = [
    "CAMERA_PATHS",
    "PointRender",
    "SceneGeometry",
    "angular_velocity",
    "apply_intrinsics",
    "camera_centres",
    "camera_rays",
    "depth_ray_to_z",
    "depth_z_to_ray",
    "difference",
    "dolly",
    "essential_matrix",
    "fit_intrinsics",
    "fundamental_matrix",
    "intrinsics_from_fov",
    "invert_se3",
    "linear_velocity",
    "lower_quantile",
    "masked_mean",
    "masked_median",
    "matrix_to_quat_wxyz",
    "matrix_to_quat_xyzw",
    "median_depth",
    "orbit",
    "pan",
    "path_length",
    "pixel_grid",
    "project",
    "quat_wxyz_to_matrix",
    "quat_xyzw_to_matrix",
    "relative_pose",
    "relative_rotation",
    "render_depth",
    "resample_path",
    "rotate",
    "safe_norm",
    "sampson_distance",
    "scale_intrinsics",
    "se3_from_rt",
    "skew",
    "so3_exp",
    "so3_log",
    "static_mask_from_flow",
    "symmetric_epipolar_distance",
    "transform_points",
    "truck",
    "unproject",
    "valid_depth",
    "with_static_mask",
]
