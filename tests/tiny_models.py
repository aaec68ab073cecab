"""Tiny models of random weights, of the real classes, that several packages' tests share."""

import json
from pathlib import Path
from typing import Any

import torch

from vggrpo.backbones import LatentSpec
from vggrpo.backbones.any4d import Any4DConfig
from vggrpo.backbones.vggt import VGGT, VGGTConfig
from vggrpo.lgm import Connector, LatentGeometryModel


def tiny_any4d_config(**changes: Any) -> Any4DConfig:
    """The smallest Any4D that has everything: two encoder and four multi-view blocks, patches of 8 pixels."""
    values = {
        "patch_size": 8,
        "encoder_dim": 16,
        "encoder_depth": 2,
        "encoder_heads": 2,
        "position_grid": 4,
        "multi_view_dim": 16,
        "multi_view_depth": 4,
        "multi_view_heads": 2,
        "multi_view_hooks": (1, 2),
        "dpt_features": 8,
        "dpt_layer_dims": (4, 8, 8, 8),
        "scale_dim": 8,
    }
    return Any4DConfig(**(values | changes))


def tiny_vggt(camera_iterations: int = 4) -> VGGT:
    """The same small VGGT at every call, with patches of 4 pixels; its cameras look about ahead at a scene
    about 3 away. Stitch points E0, E1, E2, A0, A1."""
    torch.manual_seed(11)
    model = VGGT(
        VGGTConfig(
            patch_size=4,
            encoder_dim=16,
            encoder_depth=2,
            encoder_heads=2,
            position_grid=4,
            num_registers=2,
            aggregator_depth=5,
            aggregator_heads=2,
            camera_depth=1,
            camera_heads=2,
            camera_iterations=camera_iterations,
            dpt_layers=(1, 2, 3, 4),
            dpt_features=8,
            dpt_layer_dims=(4, 4, 8, 8),
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
        correction = model.network.camera_head.correction.fc2
        correction.weight.mul_(0.1)
        # The steps add up.
        correction.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 0, 1.0, 1.0, 1.2]) / camera_iterations)
        model.network.depth_head.regressor.out.bias[0] = 1.1
    return model.requires_grad_(False).eval()


def tiny_latent_geometry(latent_spec: LatentSpec, dtype: torch.dtype = torch.float32) -> LatentGeometryModel:
    """The same small VGGT at every call, entered from latents of `latent_spec`; all rewards exist on it.

    Its cameras are refined in one step, not four, since no gradient flows from one step to the one before.
    """
    backbone = tiny_vggt(camera_iterations=1)
    point = backbone.stitch_point("E1")
    connector = Connector(latent_spec.channels, point.width, (2, 2), point.num_special_tokens)
    return LatentGeometryModel(backbone, connector, "E1", latent_spec, "tiny", "tiny").to(dtype)


def tiny_wan(folder: Path, kind: str) -> Path:
    """Writes a complete WanPipeline of random weights.

    "wan2.1": 16 latent channels, strides 4 (time) and 8x8. "wan2.2": 48 channels, strides 4 and 16x16, a
    residual autoencoder that reads 2x2 pixels at once, one time step per latent patch.
    """
    from diffusers import AutoencoderKLWan

    from vggrpo.world import VOCABULARY, micro

    torch.manual_seed(0)
    channels = {"wan2.1": 16, "wan2.2": 48}[kind]
    of_kind = {
        "wan2.1": {"scale_factor_spatial": 8},
        "wan2.2": {
            "scale_factor_spatial": 16,
            "is_residual": True,
            "decoder_base_dim": 8,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
        },
    }
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
        scale_factor_temporal=4,
        **of_kind[kind],
    )
    transformer = micro.MicroTransformerConfig(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, ffn_dim=32, freq_dim=32
    )
    text = micro.MicroTextConfig(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    tokenizer = micro.build_tokenizer(VOCABULARY, max_length=24)
    micro.save_pipeline(
        folder,
        vae=vae,
        transformer=micro.build_transformer(channels, 16, transformer),
        text_encoder=micro.build_text_encoder(len(tokenizer), text),
        tokenizer=tokenizer,
        scheduler=micro.build_scheduler(flow_shift={"wan2.1": 3.0, "wan2.2": 5.0}[kind]),
    )
    index = folder / "model_index.json"
    settings = json.loads(index.read_text()) | {"expand_timesteps": kind == "wan2.2"}
    index.write_text(json.dumps(settings))
    return folder
