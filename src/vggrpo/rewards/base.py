"""What a reward is: a function of SceneGeometry that says, beside each value, whether it may be used."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry, valid_depth

LIMIT = 1e12
"""Of every number of a scene that is scored: squares of larger ones overflow in float32."""


@dataclass(frozen=True, eq=False)
class Reward:
    """The scores of B clips. Higher is better."""

    value: Tensor
    """[B], at least float32, differentiable; NaN where invalid, so that a failure cannot pass for a score."""
    valid: Tensor
    """[B] bool."""
    parts: dict[str, Tensor]
    """What the value is made of, by name, [B] or [B, T], without gradient; each reward documents its own."""


class SceneReward(ABC):
    """Base of all rewards: precision, autocast and failed geometry are settled here, once."""

    def __call__(self, scene: SceneGeometry) -> Reward:
        """Scores each clip.

        Computes in float32 (float64 if the scene is), whatever autocast says. A clip with a non-finite
        number in its geometry, of absurd size (`LIMIT`), without positive focal lengths or without any
        surface is invalid: its value is NaN, and no gradient flows to it. All gradients are finite.

        Raises:
            ValueError: if the scene has too few views.
        """
        with torch.autocast(device_type=scene.device.type, enabled=False):
            scene = scene.to(dtype=torch.promote_types(scene.dtype, torch.float32))
            usable = usable_samples(scene)
            value, valid, parts = self.score(neutralised(scene, usable))
            valid = valid & usable
            return Reward(
                value=torch.where(valid, value, torch.nan),
                valid=valid,
                parts={name: part.detach() for name, part in parts.items()},
            )

    @abstractmethod
    def score(self, scene: SceneGeometry) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Value [B], validity [B] and parts of scenes whose numbers are all finite."""


def usable_samples(scene: SceneGeometry) -> Tensor:
    """[B] bool: all numbers within `LIMIT`, focal lengths positive, and a surface that is seen, no nearer
    than 1 / `LIMIT`."""
    numbers = [tensor for tensor in scene.as_dict().values() if tensor.is_floating_point()]
    finite = torch.stack([(tensor.abs() <= LIMIT).flatten(1).all(dim=1) for tensor in numbers]).all(dim=0)
    focal = torch.stack([scene.intrinsics[..., 0, 0], scene.intrinsics[..., 1, 1]])
    has_surface = (valid_depth(scene.depth_z) & (scene.depth_z >= 1 / LIMIT)).flatten(1).any(dim=1)
    return finite & (focal > 0).all(dim=-1).all(dim=0) & has_surface


def neutralised(scene: SceneGeometry, usable: Tensor) -> SceneGeometry:
    """The scene with unusable samples replaced by constants at which every value and gradient is finite."""

    def select(tensor: Tensor, substitute: Tensor) -> Tensor:
        return torch.where(usable.reshape(-1, *[1] * (tensor.ndim - 1)), tensor, substitute)

    like = scene.depth_z
    optional = {
        name: select(tensor, tensor.new_zeros(()))
        for name, tensor in scene.as_dict().items()
        if name in ("confidence", "scene_flow_from_ref")
    }
    return replace(
        scene,
        camera_to_world=select(scene.camera_to_world, torch.eye(4, device=like.device, dtype=like.dtype)),
        intrinsics=select(scene.intrinsics, torch.eye(3, device=like.device, dtype=like.dtype)),
        depth_z=select(scene.depth_z, like.new_ones(())),
        world_points=select(scene.world_points, like.new_zeros(())),
        **optional,
    )
