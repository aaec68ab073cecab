"""The VGGT network: T views of one scene to cameras, depth, and points in the first view's frame.

Written from the published architecture of VGGT (revision 9e4fa66). Its tracking head is not built.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vggrpo.backbones.image_network import ImageNetwork
from vggrpo.backbones.vggt.aggregator import Aggregator
from vggrpo.backbones.vggt.config import VGGTConfig
from vggrpo.backbones.vggt.heads import CameraHead, DenseHead
from vggrpo.backbones.vggt.prediction import VGGTPrediction
from vggrpo.backbones.vit import at_least_float32


class VGGTNetwork(ImageNetwork):
    """Image encoder, aggregator, and heads for cameras, depth and points.

    Under autocast encoder and aggregator run in its type; all heads stay in float32, as upstream.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__(config, num_registers=config.num_registers, antialias=True)
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config)
        self.depth_head = DenseHead(config, out_channels=2)
        self.point_head = DenseHead(config, out_channels=4)

    def predict(self, frames: Tensor, with_points: bool = True) -> VGGTPrediction:
        """Frames [B, T, H, W, 3] in [0, 1], sides multiples of the patch, to the raw prediction.

        Without `with_points` the point head, a third of the cost of the heads, is not run.
        """
        features, grid = self.encode(frames)
        return self.predict_from_tokens(self.aggregator.begin(features), grid, with_points=with_points)

    def predict_from_tokens(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        first_pair: int = 0,
        with_points: bool = True,
        lost: Sequence[Tensor] = (),
    ) -> VGGTPrediction:
        """Tokens before pair `first_pair` of the aggregator [B, T, S + h*w, C], on `grid` = (h, w), to the
        raw prediction.

        `lost` are the patches [B, T, h*w, 2C] of the layers before that pair that feed the heads.
        """
        layers = [at_least_float32(layer) for layer in self.aggregator.finish(tokens, grid, first_pair)]
        patches = [layer[:, :, self.aggregator.num_special_tokens :] for layer in layers]
        with torch.autocast(tokens.device.type, enabled=False):
            supplied = [at_least_float32(layer) for layer in lost]
            return self._heads([*supplied, *patches], layers[-1][:, :, 0], grid, with_points)

    def _heads(
        self, patches: list[Tensor], camera_tokens: Tensor, grid: tuple[int, int], with_points: bool
    ) -> VGGTPrediction:
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        log_depth, log_depth_confidence = self.depth_head(patches, grid, size).unbind(-1)
        points = self.point_head(patches, grid, size) if with_points else None
        return VGGTPrediction(
            pose_encodings=self.camera_head(camera_tokens),
            log_depth=log_depth,
            log_depth_confidence=log_depth_confidence,
            point_vectors=None if points is None else points[..., :3],
            log_point_confidence=None if points is None else points[..., 3],
        )
