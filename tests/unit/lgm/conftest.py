"""A small Any4D of random weights, and latents that hold all that its patch embedding sees.

So the tokens at E0 are a linear function of the latents, and stitching there can be exact.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tiny_models import tiny_any4d_config
from vggrpo.backbones import GeometryBackbone, LatentSpec
from vggrpo.backbones.any4d import Any4D, reset_parameters

CHANNELS = 3
PATCH = 4
GRID = (3, 4)
VIEWS = 3

MakeBackbone = Callable[[], GeometryBackbone]
MakeClips = Callable[[int, int], tuple[Tensor, Tensor]]


@pytest.fixture(scope="session")
def make_backbone() -> MakeBackbone:
    """The same small Any4D, built anew at every call (a latent geometry model takes its backbone over)."""

    def make() -> GeometryBackbone:
        config = tiny_any4d_config(patch_size=PATCH, dpt_layer_dims=(6, 6, 8, 8))
        backbone = Any4D(config)
        generator = torch.Generator().manual_seed(7)
        reset_parameters(backbone.network, depth=3.0, generator=generator)
        with torch.no_grad():  # away from the plain start, at which every camera and every ray is the same
            for parameter in backbone.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
            backbone.network.dense_head.regressor.out.weight.mul_(10)
        return backbone.requires_grad_(False).eval()

    return make


@pytest.fixture
def backbone(make_backbone: MakeBackbone) -> GeometryBackbone:
    return make_backbone()


@pytest.fixture(scope="session")
def latent_spec() -> LatentSpec:
    """One frame in four, averaged over 2x2 pixels."""
    return LatentSpec(CHANNELS, spatial_stride=2, temporal_stride=4, fingerprint="0123456789abcdef" * 4)


@pytest.fixture(scope="session")
def make_clips() -> MakeClips:
    """Latents [B, 3, T, 6, 8] and the frames [B, T, 12, 16, 3] that they determine: 2x2 equal pixels each."""

    def make(count: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        latents = torch.rand(count, CHANNELS, VIEWS, 2 * GRID[0], 2 * GRID[1], generator=generator)
        images = F.interpolate(latents.flatten(0, 1), scale_factor=2, mode="nearest")
        return latents, images.unflatten(0, (count, CHANNELS)).permute(0, 2, 3, 4, 1).contiguous()

    return make
