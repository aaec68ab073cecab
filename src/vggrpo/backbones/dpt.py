"""The DPT decoder (Ranftl et al., 2021): four feature maps of one grid to one map of eight times its sides.

Every resize keeps corners aligned. Maps are [N, C, h, w] in channels-last memory, which the token layout
gives for free and the convolutions prefer.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggrpo.backbones.vit import Recomputable, at_least_float32

PIXELS_AT_ONCE = 2**21
"""Of a raster, that a dense head works on at once: a head keeps a kilobyte and more for each."""


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

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """`code` [1, dim, h, w] is added to the projection."""
        x = self.project(x)
        return self.adapt(self.resize(x if code is None else x + code))


class ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))); relu(x) + ... where the skip is rectified."""

    def __init__(self, dim: int, rectified_skip: bool = False) -> None:
        super().__init__()
        self.rectified_skip = rectified_skip
        self.conv1 = nn.Conv2d(dim, dim, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        rectified = F.relu(x)
        skip = rectified if self.rectified_skip else x
        return skip + self.conv2(F.relu(self.conv1(rectified)))


class Fusion(nn.Module):
    """Adds a finer map to the decoder's state (not at the coarsest level), refines, and resizes it: to
    `size`, or to twice its sides."""

    def __init__(self, dim: int, coarsest: bool, rectified_skip: bool = False) -> None:
        super().__init__()
        self.merge = None if coarsest else ResidualUnit(dim, rectified_skip)
        self.refine = ResidualUnit(dim, rectified_skip)
        self.out = nn.Conv2d(dim, dim, kernel_size=1)

    def forward(
        self, state: Tensor, finer: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        if self.merge is not None and finer is not None:
            state = state + self.merge(finer)
        # Interpolation weights sum to 1, so the 1x1 convolution commutes with it and is four times cheaper
        # before.
        x = self.out(self.refine(state))
        return resize_map(x, size or (2 * x.shape[-2], 2 * x.shape[-1]))


class DptDecoder(nn.Module):
    """Four maps [N, C_i, h, w] to [N, decoder_dim, 8h, 8w].

    The coarsest map has ceil(h/2) rows, so that twice as many may be one too many. Any4D doubles and cuts
    the surplus off; with `fit_odd` the map is resized to h rows instead (VGGT). `rectified_skip`: see
    `ResidualUnit`.
    """

    FACTORS = (4.0, 2.0, 1.0, 0.5)

    def __init__(
        self,
        in_dims: Sequence[int],
        layer_dims: Sequence[int],
        decoder_dim: int,
        *,
        rectified_skip: bool = False,
        fit_odd: bool = False,
    ) -> None:
        super().__init__()
        self.fit_odd = fit_odd
        self.reassemble = nn.ModuleList(
            Reassemble(in_dim, dim, factor, decoder_dim)
            for in_dim, dim, factor in zip(in_dims, layer_dims, self.FACTORS, strict=True)
        )
        self.fusions = nn.ModuleList(
            Fusion(decoder_dim, coarsest=level == 3, rectified_skip=rectified_skip) for level in range(4)
        )

    def forward(self, maps: Sequence[Tensor], codes: Sequence[Tensor | None] = (None,) * 4) -> Tensor:
        """`codes`, one per map, [1, layer_dim, h, w] each, are added to the projected maps."""
        pyramid = [
            reassemble(x, code) for reassemble, x, code in zip(self.reassemble, maps, codes, strict=True)
        ]
        h, w = pyramid[2].shape[-2:]
        state = self.fusions[3](pyramid[3], size=(h, w) if self.fit_odd else None)[:, :, :h, :w]
        for level in (2, 1, 0):
            state = self.fusions[level](state, pyramid[level])
        return state


class DenseRegressor(nn.Module):
    """Decoder features [N, C, h, w] to `out_channels` values per pixel of a raster, [N, out_channels, H, W].

    The last layer and its values are float32 even under autocast: bfloat16 would round a depth by .4 %. (On a
    GPU its products are TF32 unless `torch.backends.cudnn.allow_tf32` is switched off: .05 %.)
    """

    def __init__(self, dim: int, hidden_dim: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim // 2, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(dim // 2, hidden_dim, kernel_size=3, padding=1)
        self.out = nn.Conv2d(hidden_dim, out_channels, kernel_size=1)

    def forward(self, features: Tensor, size: tuple[int, int], code: Tensor | None = None) -> Tensor:
        """`code` [1, dim // 2, H, W] is added to the resized features."""
        x = resize_map(self.conv1(features), size)
        x = F.relu(self.conv2(x if code is None else x + code))
        with torch.autocast(x.device.type, enabled=False):
            return self.out(at_least_float32(x))


class PartwiseHead(Recomputable):
    """A dense head that works on large rasters a few images after the other.

    Nothing in a dense head looks from one image to another, so only its memory is less. Where gradients are
    wanted all images run at once, unless `recompute` is set.
    """

    def in_parts(self, run: Callable[..., Tensor], maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """`run(*maps)` of maps [N, C_i, h, w], [N, ...] on a raster of `size`."""
        at_once = max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
        if len(maps[0]) <= at_once or (torch.is_grad_enabled() and not self.recompute):
            return self.recomputed(run, *maps)
        parts = zip(*(x.split(at_once) for x in maps), strict=True)
        return torch.cat([self.recomputed(run, *part) for part in parts])
