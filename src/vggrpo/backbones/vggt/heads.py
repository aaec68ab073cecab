"""VGGT's heads: cameras, and dense maps of depth or points."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggrpo.backbones.dpt import DenseRegressor, DptDecoder, PartwiseHead
from vggrpo.backbones.vggt.config import VGGTConfig
from vggrpo.backbones.vit import Block, Mlp, as_maps

POSE_DIM = 9
"""Translation 3, quaternion xyzw 4, vertical and horizontal field of view."""
REGRESSOR_DIM = 32
CODE_GAIN = 0.1
CODE_BASE = 100


class CameraHead(nn.Module):
    """The camera tokens of all views to their cameras, refined step by step.

    Each step sees the pose so far and adds a correction to it. No gradient flows from one step to those
    before it.
    """

    EPS = 1e-5

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = 2 * config.encoder_dim
        self.iterations = config.camera_iterations
        self.token_norm = nn.LayerNorm(dim, eps=self.EPS)
        self.empty_pose = nn.Parameter(torch.zeros(POSE_DIM))
        self.embed_pose = nn.Linear(POSE_DIM, dim)
        self.modulation = nn.Linear(dim, 3 * dim)
        self.modulated_norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.trunk = nn.ModuleList(
            Block(dim, config.camera_heads, config.mlp_ratio, layer_scale=True, eps=self.EPS)
            for _ in range(config.camera_depth)
        )
        self.trunk_norm = nn.LayerNorm(dim, eps=self.EPS)
        self.correction = Mlp(dim, dim // 2, POSE_DIM)

    def forward(self, tokens: Tensor) -> Tensor:
        """Camera tokens [B, T, 2C] to the pose encodings after every step, [iterations, B, T, 9]."""
        tokens = self.token_norm(tokens)
        normalised = self.modulated_norm(tokens)
        seen = self.empty_pose.expand(*tokens.shape[:2], -1)
        pose = torch.zeros_like(seen)
        poses = []
        for _ in range(self.iterations):
            shift, scale, gate = self.modulation(F.silu(self.embed_pose(seen))).chunk(3, dim=-1)
            state = tokens + gate * (normalised * (1 + scale) + shift)
            for block in self.trunk:
                state = block(state)
            poses.append(pose + self.correction(self.trunk_norm(state)))
            seen = pose = poses[-1].detach()
        return torch.stack(poses)


class DenseHead(PartwiseHead):
    """A DPT decoder and its regressor: the patch tokens of four layers to values per pixel."""

    def __init__(self, config: VGGTConfig, out_channels: int) -> None:
        super().__init__()
        in_dim, dim = 2 * config.encoder_dim, config.dpt_features
        self.layer_dims = config.dpt_layer_dims
        self.norm = nn.LayerNorm(in_dim, eps=1e-5)
        self.decoder = DptDecoder([in_dim] * 4, self.layer_dims, dim, rectified_skip=True, fit_odd=True)
        self.regressor = DenseRegressor(dim, REGRESSOR_DIM, out_channels)
        self.code_dim = dim // 2

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Four [B, T, h*w, 2C] on `grid` = (h, w) to [B, T, H, W, out_channels] at `size` = (H, W)."""
        device = layers[0].device
        maps = [as_maps(self.norm(layer), grid) for layer in layers]
        codes = [sine_code(dim, grid, device) for dim in self.layer_dims]
        code = sine_code(self.code_dim, size, device)
        dense = self.in_parts(lambda *part: self.regressor(self.decoder(part, codes), size, code), maps, size)
        return dense.permute(0, 2, 3, 1).unflatten(0, layers[0].shape[:2])


def sine_code(dim: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """A code of every place of an image, [1, dim, h, w]: sines and cosines of x, then of y.

    x and y of pixel centres are 0 in the middle of the image, whose half diagonal is 1; the image has the
    proportions of `size`.
    """
    h, w = size
    diagonal = (h * h + w * w) ** 0.5
    rate = CODE_BASE ** -(torch.arange(dim // 4, device=device) / (dim // 4))

    def along(side: int) -> Tensor:
        centres = (2 * torch.arange(side, device=device) + 1 - side) / diagonal
        angles = rate[:, None] * centres
        return CODE_GAIN * torch.cat([angles.sin(), angles.cos()])

    horizontal = along(w)[:, None, :].expand(-1, h, -1)
    vertical = along(h)[:, :, None].expand(-1, -1, w)
    return torch.cat([horizontal, vertical])[None]
