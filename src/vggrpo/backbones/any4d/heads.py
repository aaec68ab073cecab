"""Any4D's heads: dense maps, camera pose, metric scale."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggrpo.backbones.any4d.config import Any4DConfig
from vggrpo.backbones.dpt import DenseRegressor, DptDecoder, PartwiseHead
from vggrpo.backbones.vit import at_least_float32


class DenseHead(PartwiseHead):
    """A DPT decoder and its regressor: four maps [N, C_i, h, w] to [N, out_channels, H, W]."""

    def __init__(self, config: Any4DConfig, out_channels: int) -> None:
        super().__init__()
        dim = config.dpt_features
        in_dims = (config.encoder_dim, *([config.multi_view_dim] * 3))
        self.decoder = DptDecoder(in_dims, config.dpt_layer_dims, dim)
        self.regressor = DenseRegressor(dim, dim // 2, out_channels)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        return self.in_parts(lambda *part: self.regressor(self.decoder(part), size), maps, size)


class PoseUnit(nn.Module):
    """x + three pointwise layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, kernel_size=1)
        self.conv2 = nn.Conv2d(dim, dim, kernel_size=1)
        self.conv3 = nn.Conv2d(dim, dim, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for conv in (self.conv1, self.conv2, self.conv3):
            residual = F.relu(conv(residual))
        return x + residual


class PoseHead(nn.Module):
    """The final map [N, C, h, w] to a translation [N, 3] and an unnormalised xyzw quaternion [N, 4]."""

    def __init__(self, config: Any4DConfig) -> None:
        super().__init__()
        dim = 4 * config.patch_size**2
        self.project = nn.Conv2d(config.multi_view_dim, dim, kernel_size=1)
        self.units = nn.ModuleList(PoseUnit(dim) for _ in range(config.pose_units))
        self.fc1 = nn.Linear(dim, dim)
        self.fc2 = nn.Linear(dim, dim)
        self.translation = nn.Linear(dim, 3)
        self.rotation = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.project(x)
        for unit in self.units:
            x = unit(x)
        pooled = F.relu(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3))))))
        with torch.autocast(x.device.type, enabled=False):
            pooled = at_least_float32(pooled)
            return self.translation(pooled), self.rotation(pooled)


class ScaleHead(nn.Module):
    """The scale token [B, C] to the logarithm of the metric scale, [B]."""

    def __init__(self, config: Any4DConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.multi_view_dim, config.scale_dim)
        self.layers = nn.ModuleList(
            nn.Linear(config.scale_dim, config.scale_dim) for _ in range(config.scale_layers)
        )
        self.out = nn.Linear(config.scale_dim, 1)

    def forward(self, token: Tensor) -> Tensor:
        x = self.project(token)
        for layer in self.layers:
            x = F.relu(layer(x))
        with torch.autocast(x.device.type, enabled=False):
            return self.out(at_least_float32(x))[..., 0]
