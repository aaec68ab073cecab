"""The parity fixtures: tiny networks of seeded random weights, pushed through upstream's implementations."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vggrpo.backbones.any4d import Any4D, Any4DConfig
from vggrpo.backbones.vggt import VGGT, VGGTConfig

ASSETS = Path(__file__).parents[2] / "assets"


@dataclass(frozen=True)
class UpstreamRecord:
    """What upstream computed, float32: images in, outputs, activations, and the gradient at the images."""

    config: Any
    checkpoint: Path
    frames: Tensor
    """[2, 4, H, W, 3]: a grid of 4 x 5 patches."""
    outputs: dict[str, Tensor]
    taps: dict[str, Tensor]
    grads: dict[str, Tensor]
    grid: tuple[int, int] = (4, 5)

    @classmethod
    def load(cls, folder: Path, config: Any) -> "UpstreamRecord":
        return cls(
            config=config,
            checkpoint=folder / "state_dict.safetensors",
            frames=load_file(folder / "inputs.safetensors")["images"].permute(0, 1, 3, 4, 2).contiguous(),
            outputs=load_file(folder / "outputs.safetensors"),
            taps=load_file(folder / "taps.safetensors"),
            grads=load_file(folder / "grads.safetensors"),
        )


class Any4DRecord(UpstreamRecord):
    def model(self) -> Any4D:
        """A new model with upstream's weights."""
        return Any4D.from_upstream(self.checkpoint, self.config)

    def tokens(self, point: str) -> tuple[Tensor, Tensor]:
        """Upstream's patch and special tokens at a stitch point."""
        if point == "F":
            patches = self.taps["encoder.features"].flatten(3).transpose(2, 3)
            return patches, patches[:, :, :0]
        block = int(point[1:])
        if point[0] == "M":
            names = ["multi_view.tokens", *(f"multi_view.block.{j}" for j in range(block))]
            before = [self.taps[name] for name in names]
            # Blocks within views know patches only; the scale token is that of the last block over all views.
            whole = next(tokens for tokens in reversed(before) if tokens.ndim == 3)
            patches = whole[:, :-1].unflatten(1, (4, 20)) if before[-1].ndim == 3 else before[-1]
            return patches, whole[:, None, -1:].expand(-1, 4, -1, -1)
        tokens = self.taps["encoder.tokens" if block == 0 else f"encoder.block.{block - 1}"]
        return tokens[:, :, 1:], tokens[:, :, :1]

    def lost(self, point: str) -> dict[str, Tensor]:
        """Upstream's inputs of the dense heads from before a stitch point."""
        first = int(point[1:]) if point[0] == "M" else -1
        names = [name for name, block in (("fused", -1), ("hook3", 3), ("hook5", 5)) if block < first]
        return {name: self.taps[f"dpt.input.{i}"].flatten(3).transpose(2, 3) for i, name in enumerate(names)}


class VGGTRecord(UpstreamRecord):
    def model(self) -> VGGT:
        """A new model with upstream's weights."""
        return VGGT.from_upstream(self.checkpoint, self.config)

    def tokens(self, point: str) -> tuple[Tensor, Tensor]:
        """Upstream's patch and special tokens at a stitch point."""
        number = int(point[1:])
        if point == "A0":
            patches = self.taps["encoder.features"]
            return patches, patches[:, :, :0]
        if point[0] == "A":
            tokens = self.taps[f"aggregator.global.{number - 1}"]
        else:
            tokens = self.taps["encoder.tokens" if number == 0 else f"encoder.block.{number - 1}"]
        return tokens[:, :, 5:], tokens[:, :, :5]

    def lost(self, point: str) -> dict[str, Tensor]:
        """Upstream's inputs of the dense heads from before a stitch point."""
        first = int(point[1:]) if point[0] == "A" else 0
        return {
            f"layer{layer}": torch.cat(
                [self.taps[f"aggregator.{kind}.{layer}"][:, :, 5:] for kind in ("frame", "global")], dim=-1
            )
            for layer in (1, 3, 5)
            if layer < first
        }


@pytest.fixture(scope="session")
def upstream() -> UpstreamRecord:
    folder = ASSETS / "any4d_tiny"
    record = json.loads((folder / "config.json").read_text())["model"]
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
    return Any4DRecord.load(folder, config)


@pytest.fixture(scope="session")
def vggt_upstream() -> UpstreamRecord:
    folder = ASSETS / "vggt_tiny"
    record = json.loads((folder / "config.json").read_text())["model"]
    encoder, aggregator, camera, dpt = (record[k] for k in ("encoder", "aggregator", "camera_head", "dpt"))
    config = VGGTConfig(
        patch_size=record["patch_size"],
        encoder_dim=encoder["embed_dim"],
        encoder_depth=encoder["depth"],
        encoder_heads=encoder["num_heads"],
        position_grid=encoder["img_size"] // record["patch_size"],
        mlp_ratio=encoder["mlp_ratio"],
        num_registers=encoder["num_register_tokens"],
        aggregator_depth=aggregator["depth"],
        aggregator_heads=aggregator["num_heads"],
        rope_base=aggregator["rope_frequency"],
        camera_depth=camera["trunk_depth"],
        camera_heads=camera["num_heads"],
        camera_iterations=camera["num_iterations"],
        dpt_layers=tuple(dpt["layers"]),
        dpt_features=dpt["features"],
        dpt_layer_dims=tuple(dpt["out_channels"]),
    )
    return VGGTRecord.load(folder, config)


@pytest.fixture
def any4d(upstream: Any4DRecord) -> Any4D:
    """A model with upstream's weights, the test's own."""
    return upstream.model()


@pytest.fixture
def vggt(vggt_upstream: VGGTRecord) -> VGGT:
    """A model with upstream's weights, the test's own."""
    return vggt_upstream.model()
