"""The camera-trajectory reward: how closely the camera follows a given path."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.geometry import (
    SceneGeometry,
    camera_centres,
    median_depth,
    relative_pose,
    relative_rotation,
    safe_norm,
    so3_log,
)
from vggrpo.rewards.base import SceneReward


@dataclass(frozen=True, eq=False)
class CameraTrajectoryReward(SceneReward):
    """r = 1/2 ( 1/(1 + e_trans) + 1/(1 + e_rot) ), in (0, 1]; 1 on the target.

    Both paths are taken relative to their first camera. With c_i, R_i the centres and rotations of the
    cameras 1 .. T - 1, and c*_i, R*_i those of the target,

        e_trans = mean_i |c_i / unit - c*_i| / ( mean_i |c*_i| + d ),
        e_rot   = mean_i |log( R*_i^T R_i )| / ( mean_i |log( R*_i )| + d' ).

    `unit` is the clip's median depth, so that a target of 0.5 asks for half the way to what is seen, in
    whatever units the geometry model works; without `relative`, it is 1.

    Parts, all [B]: `e_trans`, `e_rot`, `trajectory_error` (root mean square distance of the centres, in
    `unit`) and `rotation_error` (mean angle, in radians).

    Raises:
        ValueError: if the target is no path or a floor is not positive, or on a call if the scene has another
            number of views than the target.
    """

    target: Tensor
    """camera_to_world [T, 4, 4], one for each view."""
    relative: bool = True
    """Whether the target's lengths are in median depths, or in scene units."""
    translation_floor: float = 0.05
    """d, in the target's unit: below it the length of the target's path no longer counts."""
    rotation_floor: float = 0.05
    """d', in radians."""

    def __post_init__(self) -> None:
        if self.target.ndim != 3 or self.target.shape[1:] != (4, 4) or len(self.target) < 2:
            raise ValueError(
                f"target has shape {list(self.target.shape)}, expected camera_to_world [T, 4, 4] with T >= 2"
            )
        if not bool(self.target.isfinite().all()):
            raise ValueError("target holds numbers that are not finite")
        for name in ("translation_floor", "rotation_floor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but it must be positive")

    def score(self, scene: SceneGeometry) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See the class."""
        if scene.num_views != len(self.target):
            raise ValueError(
                f"scene has {scene.num_views} views, but the target path has {len(self.target)}; resample it "
                "with geometry.resample_path"
            )
        like = scene.camera_to_world
        path = _from_first(like)
        target = _from_first(self.target.to(device=like.device, dtype=like.dtype))
        unit = median_depth(scene.depth_z) if self.relative else scene.depth_z.new_ones(scene.batch_size)
        centres, wanted = camera_centres(path) / unit[:, None, None], camera_centres(target)
        distance = safe_norm(centres - wanted)
        angle = safe_norm(so3_log(relative_rotation(target[:, :3, :3], path[..., :3, :3])))
        length = safe_norm(wanted).mean() + self.translation_floor
        turn = safe_norm(so3_log(target[:, :3, :3])).mean() + self.rotation_floor
        e_trans, e_rot = distance.mean(dim=1) / length, angle.mean(dim=1) / turn
        value = 0.5 * (1 / (1 + e_trans) + 1 / (1 + e_rot))
        parts = {
            "e_trans": e_trans,
            "e_rot": e_rot,
            "trajectory_error": distance.square().mean(dim=1).sqrt(),
            "rotation_error": angle.mean(dim=1),
        }
        return value, torch.isfinite(value), parts


def _from_first(camera_to_world: Tensor) -> Tensor:
    """Cameras 1 .. T - 1 in the first one's axes: [..., T, 4, 4] -> [..., T - 1, 4, 4]."""
    return relative_pose(camera_to_world[..., :1, :, :], camera_to_world[..., 1:, :, :])
