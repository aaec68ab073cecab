"""The 4D scene of a generated video, from its latents."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.backbones import LatentSpec
from vggrpo.data import VideoOrder
from vggrpo.geometry import SceneGeometry
from vggrpo.rewards import SceneReward
from vggrpo.viewer.scene_building import build_scene
from vggrpo.viewer.scene_file import save_scene


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
        geometry = self.geometry(latents[None])
        scene = build_scene(
            geometry,
            frames,
            self.latent_spec.view_frames(geometry.num_views),
            fps=self.fps,
            rewards=self.rewards,
            flow_threshold=self.flow_threshold,
            relative=self.relative,
            label=order.video.stem,
            prompt=order.prompt.text,
            source={"video": order.video.name, "made_from": order.made_from},
        )
        save_scene(order.scene, scene)
