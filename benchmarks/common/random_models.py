"""Wan pipelines and geometry models with random weights: at their published sizes, or tiny."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from vggrpo.backbones import GeometryBackbone, LatentSpec
from vggrpo.backbones.any4d import Any4D, Any4DConfig
from vggrpo.backbones.vggt import VGGT, VGGTConfig
from vggrpo.backbones.wan.official import OFFICIAL, PipelineShape
from vggrpo.lgm import Connector, LatentGeometryModel, token_grid
from vggrpo.world.micro import build_scheduler

SMALL_TRANSFORMER = {
    "patch_size": (1, 2, 2),
    "attention_head_dim": 12,
    "num_attention_heads": 2,
    "num_layers": 2,
    "ffn_dim": 64,
    "freq_dim": 32,
    "text_dim": 16,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
}
SMALL_VAE = {"base_dim": 8, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_scales": []}


@dataclass(frozen=True)
class Sizes:
    """The dimensions of every model."""

    video: dict[str, PipelineShape]
    """By the names of models.yaml."""
    any4d: Any4DConfig
    vggt: VGGTConfig


def small(shape: PipelineShape) -> PipelineShape:
    """The pipeline with the same latents, strides and kind of autoencoder, and narrow, shallow networks."""
    channels = shape.vae["z_dim"]
    transformer = SMALL_TRANSFORMER | {"in_channels": channels, "out_channels": channels}
    vae = shape.vae | SMALL_VAE
    if "decoder_base_dim" in vae:
        vae["decoder_base_dim"] = 8
    return PipelineShape(transformer, vae, text_encoder={}, text_length=24)


OFFICIAL_SIZES = Sizes(OFFICIAL, Any4DConfig.official(), VGGTConfig.official())
SMALL_SIZES = Sizes(
    {name: small(shape) for name, shape in OFFICIAL.items()},
    Any4DConfig(
        patch_size=8,
        encoder_dim=32,
        encoder_depth=2,
        encoder_heads=2,
        position_grid=4,
        multi_view_dim=32,
        multi_view_depth=4,
        multi_view_heads=2,
        multi_view_hooks=(1, 2),
        dpt_features=8,
        dpt_layer_dims=(4, 8, 8, 8),
        scale_dim=8,
    ),
    VGGTConfig(
        patch_size=8,
        encoder_dim=32,
        encoder_depth=2,
        encoder_heads=2,
        position_grid=4,
        num_registers=2,
        aggregator_depth=4,
        aggregator_heads=2,
        camera_depth=1,
        camera_heads=2,
        camera_iterations=4,
        dpt_layers=(0, 1, 2, 3),
        dpt_features=8,
        dpt_layer_dims=(4, 4, 8, 8),
    ),
)


def write_pipeline(folder: Path, shape: PipelineShape, flow_shift: float, device: torch.device) -> None:
    """A WanPipeline of random weights, drawn on `device`, without its text encoder."""
    torch.manual_seed(0)
    with torch.device(device):
        transformer = WanTransformer3DModel.from_config(shape.transformer)
        for parameter in transformer.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
        transformer.save_pretrained(folder / "transformer")
        AutoencoderKLWan.from_config(shape.vae).save_pretrained(folder / "vae")
    build_scheduler(flow_shift).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "WanPipeline",
        "expand_timesteps": bool(shape.vae.get("is_residual")),
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def random_geometry(name: str, sizes: Sizes, device: torch.device) -> GeometryBackbone:
    """An uncut "any4d" or "vggt"."""
    torch.manual_seed(1)
    with torch.device(device):
        model = Any4D(sizes.any4d) if name == "any4d" else VGGT(sizes.vggt)
    return model.requires_grad_(False).eval()


def random_lgm(
    name: str, sizes: Sizes, spec: LatentSpec, grid: tuple[int, int], device: torch.device
) -> LatentGeometryModel:
    """A latent geometry model that is entered at its first stitch point, where it is most expensive.

    `grid`: height and width of the latents.
    """
    geometry = random_geometry(name, sizes, device)
    point = geometry.stitch_points[0]
    connector = Connector.for_point(point, spec.channels, token_grid(*grid))
    return LatentGeometryModel(geometry, connector.to(device), point.name, spec, "random", name)
