"""The Any4D network for images: T views of one scene to rays, depth, cameras, scene flow and metric scale.

Written from the published architecture of Any4D (revision aa9f1b0). Its encoders for inputs other than
images add exact zeros when such inputs are absent and are not built.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vggrpo.backbones.any4d.config import Any4DConfig
from vggrpo.backbones.any4d.heads import DenseHead, PoseHead, ScaleHead
from vggrpo.backbones.any4d.multi_view import MultiViewTransformer
from vggrpo.backbones.any4d.prediction import Any4DPrediction
from vggrpo.backbones.image_network import ImageNetwork
from vggrpo.backbones.vit import as_maps, at_least_float32


class Any4DNetwork(ImageNetwork):
    """Image encoder, multi-view transformer, and heads for dense geometry, scene flow, camera pose and scale.

    Under autocast the two transformers run in its type; the norm between them and all heads stay in
    float32, as upstream. `float32_heads = False` lets the heads follow autocast too, up to their last
    layers: cheaper training.
    """

    float32_heads: bool = True

    def __init__(self, config: Any4DConfig) -> None:
        super().__init__(config)
        self.fusion_norm = nn.LayerNorm(config.encoder_dim, eps=1e-6)
        self.scale_token = nn.Parameter(torch.zeros(config.encoder_dim))
        self.multi_view = MultiViewTransformer(config)
        self.dense_head = DenseHead(config, out_channels=6)
        self.scene_flow_head = DenseHead(config, out_channels=3)
        self.pose_head = PoseHead(config)
        self.scale_head = ScaleHead(config)

    def predict(self, frames: Tensor) -> Any4DPrediction:
        """Frames [B, T, H, W, 3] in [0, 1], sides multiples of the patch, to the raw prediction."""
        features, grid = self.encode(frames)
        return self.predict_from_features(features, grid)

    def predict_cameras(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `predict`, but only `translation`, `quat_vectors` and `log_scale`: the dense heads, most of a
        small network's cost, are not run."""
        features, grid = self.encode(frames)
        hooked, scale_token = self.multi_view(self.fuse(features), self.scale_token)
        with self._head_types(features.device.type):
            translation, quat_vectors = self.pose_head(as_maps(at_least_float32(hooked[-1]), grid))
            log_scale = self.scale_head(at_least_float32(scale_token))
        views = frames.shape[:2]
        return translation.unflatten(0, views), quat_vectors.unflatten(0, views), log_scale

    def predict_from_features(self, features: Tensor, grid: tuple[int, int]) -> Any4DPrediction:
        """Encoder features [B, T, h*w, C] on `grid` = (h, w) to the raw prediction."""
        fused = self.fuse(features)
        hooked, scale_token = self.multi_view(fused, self.scale_token)
        return self.predict_from_head_inputs([fused, *hooked], scale_token, grid)

    def fuse(self, features: Tensor) -> Tensor:
        """Encoder features to what the multi-view transformer and the dense heads read, float32."""
        with torch.autocast(features.device.type, enabled=False):
            return self.fusion_norm(at_least_float32(features))

    def predict_from_head_inputs(
        self, inputs: Sequence[Tensor], scale_token: Tensor, grid: tuple[int, int]
    ) -> Any4DPrediction:
        """The four inputs of the dense heads [B, T, h*w, C or D], the last of which also gives the cameras,
        and the scale token [B, D] to the raw prediction."""
        with self._head_types(scale_token.device.type):
            maps = [as_maps(at_least_float32(x), grid) for x in inputs]
            return self._heads(maps, at_least_float32(scale_token), batch=len(scale_token))

    def _head_types(self, device_type: str) -> torch.autocast:
        """The context in which heads run."""
        enabled = torch.is_autocast_enabled(device_type) and not self.float32_heads
        return torch.autocast(device_type, enabled=enabled)

    def _heads(self, maps: Sequence[Tensor], scale_token: Tensor, batch: int) -> Any4DPrediction:
        h, w = maps[0].shape[-2:]
        size = (h * self.patch_size, w * self.patch_size)

        def per_view(x: Tensor) -> Tensor:
            return x.unflatten(0, (batch, -1))

        dense = per_view(self.dense_head(maps, size).permute(0, 2, 3, 1))
        ray_vectors, log_depth, log_confidence, mask_logits = dense.split((3, 1, 1, 1), dim=-1)
        flow = per_view(self.scene_flow_head(maps, size).permute(0, 2, 3, 1))
        translation, quat_vectors = self.pose_head(maps[-1])
        return Any4DPrediction(
            ray_vectors=ray_vectors,
            log_depth=log_depth[..., 0],
            log_confidence=log_confidence[..., 0],
            mask_logits=mask_logits[..., 0],
            scene_flow=flow,
            translation=per_view(translation),
            quat_vectors=per_view(quat_vectors),
            log_scale=self.scale_head(scale_token),
        )
