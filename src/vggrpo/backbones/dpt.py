"""The DPT decoder (Ranftl et al., 2021): four feature maps of one grid to one map of eight times its sides.

Every resize keeps corners aligned. Maps are [N, C, h, w] in channels-last memory, which the token layout
gives for free and the convolutions prefer.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggrpo.backbones.vit import at_least_float32


def resize_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of [N, C, h, w] to `size` with aligned corners; nothing is done at the same size."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class Reassemble(nn.Module):
    """One feature map to the pyramid: 1x1 projection, resize by `factor`, 3x3 to the decoder's width.

    `factor` is 4 or 2 (transposed convolution), 1 (nothing) or 0.5 (strided convolution, side ceil(h/2)).
    """

    def __init__(self, in_dim: int, dim: int, factor: float, decoder_dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_dim, dim, kernel_size=1)
        self.resize: nn.Module
        if factor == 1:
            self.resize = nn.Identity()
        elif factor == 0.5:
            self.resize = nn.Conv2d(dim, dim, kernel_size=3, stride=2, padding=1)
        else:
            self.resize = nn.ConvTranspose2d(dim, dim, kernel_size=int(factor), stride=int(factor))
        self.adapt = nn.Conv2d(dim, decoder_dim, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.adapt(self.resize(self.project(x)))


class ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """Adds a finer map to the decoder's state (not at the coarsest level), refines, doubles its sides."""

    def __init__(self, dim: int, coarsest: bool) -> None:
        super().__init__()
        self.merge = None if coarsest else ResidualUnit(dim)
        self.refine = ResidualUnit(dim)
        self.out = nn.Conv2d(dim, dim, kernel_size=1)

    def forward(self, state: Tensor, finer: Tensor | None = None) -> Tensor:
        if self.merge is not None and finer is not None:
            state = state + self.merge(finer)
        # Interpolation weights sum to 1, so the 1x1 convolution commutes with it and is four times cheaper
        # before.
        x = self.out(self.refine(state))
        return resize_map(x, (2 * x.shape[-2], 2 * x.shape[-1]))


class DptDecoder(nn.Module):
    """Four maps [N, C_i, h, w] to [N, decoder_dim, 8h, 8w]."""

    FACTORS = (4.0, 2.0, 1.0, 0.5)

    def __init__(self, in_dims: Sequence[int], layer_dims: Sequence[int], decoder_dim: int) -> None:
        super().__init__()
        self.reassemble = nn.ModuleList(
            Reassemble(in_dim, dim, factor, decoder_dim)
            for in_dim, dim, factor in zip(in_dims, layer_dims, self.FACTORS, strict=True)
        )
        self.fusions = nn.ModuleList(Fusion(decoder_dim, coarsest=level == 3) for level in range(4))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        pyramid = [reassemble(x) for reassemble, x in zip(self.reassemble, maps, strict=True)]
        h, w = pyramid[2].shape[-2:]
        # An odd grid was rounded up when halved: cut the surplus row and column.
        state = self.fusions[3](pyramid[3])[:, :, :h, :w]
        for level in (2, 1, 0):
            state = self.fusions[level](state, pyramid[level])
        return state


class DenseRegressor(nn.Module):
    """Decoder features [N, C, h, w] to `out_channels` values per pixel of a raster, [N, out_channels, H, W].

    The last layer and its values are float32 even under autocast: bfloat16 would round a depth by .4 %.
    """

    def __init__(self, dim: int, hidden_dim: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim // 2, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(dim // 2, hidden_dim, kernel_size=3, padding=1)
        self.out = nn.Conv2d(hidden_dim, out_channels, kernel_size=1)

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        x = F.relu(self.conv2(resize_map(self.conv1(features), size)))
        with torch.autocast(x.device.type, enabled=False):
            return self.out(at_least_float32(x))
