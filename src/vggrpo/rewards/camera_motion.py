"""The camera-motion reward: how steadily the camera moves, whatever the amount of motion."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from vggrpo.geometry import (
    SceneGeometry,
    angular_velocity,
    difference,
    linear_velocity,
    median_depth,
    safe_norm,
)
from vggrpo.rewards.base import SceneReward

MIN_VIEWS = {"acceleration": 3, "jerk": 4}


@dataclass(frozen=True)
class CameraMotionReward(SceneReward):
    """r_motion = 1/2 ( 1/(1 + e_trans) + 1/(1 + e_rot) ), in (0, 1].

    With v_i = c_{i+1} - c_i the steps of the camera centre and w_i = log(R_i^T R_{i+1}) its turns,

        acceleration:  e = mean_i |v_{i+1} - v_i| / ( |v_i| + |v_{i+1}| + d )
        jerk:          e = mean_i |v_{i+2} - 2 v_{i+1} + v_i| / ( mean_i |v_i| + d )

    and likewise for w. "acceleration" is the paper's equation as implemented elsewhere, "jerk" the ratio
    that the method's write-up words. A perfectly static camera scores exactly 1: staying still is not
    punished here.

    The views are those of the geometry, one per latent frame: shake that is faster than that cannot be seen.

    Parts, all [B]: `e_trans`, `e_rot`, `translation_speed` (mean step in median depths) and
    `rotation_speed` (mean turn in radians).

    Raises:
        ValueError: if a setting is out of range, or on a call if the scene has fewer than 3 views (jerk: 4).
    """

    order: Literal["acceleration", "jerk"] = "acceleration"
    translation_floor: float = 0.01
    """d for v, as a fraction of the scene's median depth: steps well below it are noise, not shake."""
    rotation_floor: float = 0.02
    """d for w, in radians."""

    def __post_init__(self) -> None:
        if self.order not in MIN_VIEWS:
            raise ValueError(f"order is {self.order!r}, but 'acceleration' or 'jerk' was expected")
        for name in ("translation_floor", "rotation_floor"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(
                    f"{name} is {value}, but it must be positive: without a floor a camera at rest scores 0/0"
                )

    def score(self, scene: SceneGeometry) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See the class."""
        needed = MIN_VIEWS[self.order]
        if scene.num_views < needed:
            raise ValueError(
                f"scene has {scene.num_views} views, but the camera's {self.order} needs at least {needed}: "
                "use longer videos" + (', or order="acceleration"' if self.order == "jerk" else "")
            )
        depth = median_depth(scene.depth_z)
        v = linear_velocity(scene.camera_to_world)
        w = angular_velocity(scene.camera_to_world)
        e_trans = self._unsteadiness(v, self.translation_floor * depth)
        e_rot = self._unsteadiness(w, self.rotation_floor * depth.new_ones(depth.shape))
        value = 0.5 * (1 / (1 + e_trans) + 1 / (1 + e_rot))
        parts = {
            "e_trans": e_trans,
            "e_rot": e_rot,
            "translation_speed": safe_norm(v).mean(dim=-1) / depth,
            "rotation_speed": safe_norm(w).mean(dim=-1),
        }
        return value, value.isfinite(), parts

    def _unsteadiness(self, velocity: Tensor, floor: Tensor) -> Tensor:
        """e [B] of velocities [B, T - 1, 3] above a floor [B]."""
        speed = safe_norm(velocity)
        if self.order == "acceleration":
            acceleration = safe_norm(difference(velocity))
            return (acceleration / (speed[:, :-1] + speed[:, 1:] + floor[:, None])).mean(dim=-1)
        jerk = safe_norm(difference(velocity, order=2))
        return jerk.mean(dim=-1) / (speed.mean(dim=-1) + floor)
