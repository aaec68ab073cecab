"""The geometry model that is measured, and that measures generated clips."""

import torch
from torch import Tensor

from vggrpo.backbones import GeometryBackbone, VideoBackbone
from vggrpo.evaluation import clip_features
from vggrpo.geometry import SceneGeometry
from vggrpo.lgm import teacher_frames


class Teacher:
    """A geometry model on the key frames of clips, wherever it runs: CPU tensors in and out.

    `teacher(frames)` sees the key frames of whole clips [B, T, H, W, 3] in [0, 1].
    """

    def __init__(self, geometry: GeometryBackbone, video: VideoBackbone, device: torch.device) -> None:
        self._geometry, self._spec, self._device = geometry, video.latent_spec, device

    def __call__(self, frames: Tensor) -> SceneGeometry:
        return self.of_views(self.key_frames(frames))

    def key_frames(self, frames: Tensor) -> Tensor:
        """The views of whole clips that latents stand for, [B, V, H, W, 3] on the model's raster."""
        return teacher_frames(frames, self._spec, self._geometry.patch_size)

    @torch.no_grad()
    def of_views(self, views: Tensor) -> SceneGeometry:
        """The geometry of key frames [B, V, H, W, 3]."""
        scene: SceneGeometry = self._geometry(views.to(self._device))
        return scene.to("cpu")

    def features(self, views: Tensor) -> Tensor:
        """`clip_features` of key frames [B, V, H, W, 3]."""
        return clip_features(self._geometry, views.to(self._device)).cpu()
