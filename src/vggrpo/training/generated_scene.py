"""The 4D scene of a generated video, from its latents."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.backbones import LatentSpec, resize_frames
from vggrpo.data import VideoOrder
from vggrpo.geometry import SceneGeometry, median_depth, with_static_mask
from vggrpo.rewards import Reward, SceneReward
from vggrpo.viewer.scene_file import RewardRecord, Scene4D, save_scene


@dataclass(frozen=True)
class SceneSaver:
    """Writes an order's scene file: called with the order, its latents and its frames."""

    geometry: Callable[[Tensor], SceneGeometry]
    """The latent geometry model."""
    rewards: Mapping[str, SceneReward]
    latent_spec: LatentSpec
    fps: float
    flow_threshold: float
    """Displacement that counts as moving: scene units, or median depths if `relative`."""
    relative: bool

    @torch.no_grad()
    def __call__(self, order: VideoOrder, latents: Tensor, frames: Tensor) -> None:
        """Latents [C, T_lat, H_lat, W_lat] and frames [T, H, W, 3] in [0, 1] to `order.scene`."""
        geometry = self.geometry(latents[None]).to("cpu", torch.float32)
        if geometry.scene_flow_from_ref is not None:
            unit = median_depth(geometry.depth_z) if self.relative else torch.ones(1)
            # Without any surface there is no unit, and nothing that could move.
            geometry = with_static_mask(geometry, self.flow_threshold * unit.nan_to_num(1.0))
        views = self.latent_spec.view_frames(geometry.num_views)
        colours = resize_frames(frames[None, views].float().cpu(), geometry.height, geometry.width)
        scene = Scene4D(
            geometry,
            (colours[0] * 255.0).round().to(torch.uint8),
            self.fps,
            tuple(views),
            order.video.stem,
            order.prompt.text,
            {name: _record(reward(geometry)) for name, reward in self.rewards.items()},
            {"video": order.video.name, "made_from": order.made_from},
        )
        save_scene(order.scene, scene)


def _record(reward: Reward) -> RewardRecord:
    parts = {
        name: float(part[0]) if part.ndim == 1 else tuple(part[0].double().tolist())
        for name, part in reward.parts.items()
    }
    return RewardRecord(float(reward.value[0]), parts)
