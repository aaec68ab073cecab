"""The parity fixture: a tiny Any4D with seeded random weights, pushed through the upstream implementation."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from vggrpo.backbones.any4d import Any4D, Any4DConfig

ASSETS = Path(__file__).parents[2] / "assets" / "any4d_tiny"


@dataclass(frozen=True)
class UpstreamRecord:
    """What upstream computed, float32: images in, outputs, activations, and the gradient at the images."""

    config: Any4DConfig
    checkpoint: Path
    frames: Tensor
    """[2, 4, 28, 35, 3]: a grid of 4 x 5 patches."""
    outputs: dict[str, Tensor]
    taps: dict[str, Tensor]
    grads: dict[str, Tensor]
    grid: tuple[int, int] = (4, 5)

    def model(self) -> Any4D:
        """A new model with upstream's weights."""
        return Any4D.from_upstream(self.checkpoint, self.config)

    def tokens(self, point: str) -> tuple[Tensor, Tensor]:
        """Upstream's patch and special tokens at a stitch point."""
        if point == "F":
            patches = self.taps["encoder.features"].flatten(3).transpose(2, 3)
            return patches, patches[:, :, :0]
        block = int(point[1:])
        tokens = self.taps["encoder.tokens" if block == 0 else f"encoder.block.{block - 1}"]
        return tokens[:, :, 1:], tokens[:, :, :1]


@pytest.fixture(scope="session")
def upstream() -> UpstreamRecord:
    record = json.loads((ASSETS / "config.json").read_text())["model"]
    encoder, multi_view, dpt = record["encoder"], record["multi_view"], record["dpt"]
    config = Any4DConfig(
        patch_size=record["patch_size"],
        encoder_dim=encoder["embed_dim"],
        encoder_depth=encoder["depth"],
        encoder_heads=encoder["num_heads"],
        position_grid=encoder["img_size"] // record["patch_size"],
        multi_view_dim=multi_view["dim"],
        multi_view_depth=multi_view["depth"],
        multi_view_heads=multi_view["num_heads"],
        multi_view_hooks=tuple(multi_view["indices"]),
        dpt_features=dpt["feature_dim"],
        dpt_layer_dims=tuple(dpt["layer_dims"]),
        scale_dim=record["scale_head"]["hidden_dim"],
        scale_layers=record["scale_head"]["num_mlp_layers"],
        pose_units=record["pose_head"]["num_resconv_block"],
        mlp_ratio=encoder["mlp_ratio"],
    )
    return UpstreamRecord(
        config=config,
        checkpoint=ASSETS / "state_dict.safetensors",
        frames=load_file(ASSETS / "inputs.safetensors")["images"].permute(0, 1, 3, 4, 2).contiguous(),
        outputs=load_file(ASSETS / "outputs.safetensors"),
        taps=load_file(ASSETS / "taps.safetensors"),
        grads=load_file(ASSETS / "grads.safetensors"),
    )


@pytest.fixture
def any4d(upstream: UpstreamRecord) -> Any4D:
    """A model with upstream's weights, the test's own."""
    return upstream.model()
