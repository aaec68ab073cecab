"""Tiny models of the real classes, most of random weights, that several packages' tests share."""

import json
from pathlib import Path
from typing import Any

import torch

from vggrpo.backbones import LatentSpec
from vggrpo.backbones.any4d import Any4D, Any4DConfig
from vggrpo.backbones.vggt import VGGT, VGGTConfig
from vggrpo.lgm import Connector, LatentGeometryModel, distillation_loss


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


def tiny_any4d() -> Any4D:
    """A small Any4D as training starts it. Stitch points E0, E1, E2, F, M0, ... M3."""
    model = Any4D(tiny_any4d_config())
    model.reset_parameters(depth=3.0, generator=torch.Generator().manual_seed(0))
    return model


def trained_tiny_any4d() -> Any4D:
    """One that has learnt, of clips of the world, what a camera is: its rewards can be computed."""
    from vggrpo.world import render_clips, sample_scene

    clips = render_clips([sample_scene("train", i) for i in range(8)], num_frames=9, height=16, width=16)
    frames, truth = clips.frames[:, ::4], clips.geometry.select(range(0, 9, 4))
    model = tiny_any4d().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        loss, _ = distillation_loss(model(frames), truth)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.requires_grad_(False).eval()


def tiny_vggt(camera_iterations: int = 4) -> VGGT:
    """The same small VGGT at every call, with patches of 4 pixels; its cameras look about ahead at a scene
    about 3 away. Stitch points E0, E1, E2, A0, A1, ... A4."""
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


def tiny_ltx(folder: Path, **vae_changes: Any) -> Path:
    """Writes a complete LTXPipeline of random weights: 8 latent channels, strides 8 (time) and 32x32.

    The sigma grid is that of the published scheduler: shifted by the number of tokens, stretched to end at
    .1. `vae_changes` are of the autoencoder's configuration.
    """
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    from vggrpo.world import VOCABULARY, micro

    torch.manual_seed(0)
    channels, text_dim = 8, 16
    vae = AutoencoderKLLTXVideo(
        latent_channels=channels,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        **vae_changes,
    )
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if "per_channel_scale" in name:  # of noise inside the decoder: zero in a new one
                parameter.fill_(0.1)
    vae.latents_mean.uniform_(-0.5, 0.5)
    vae.latents_std.uniform_(0.5, 1.5)
    transformer = LTXVideoTransformer3DModel(
        in_channels=channels,
        out_channels=channels,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=2,
        caption_channels=text_dim,
    )
    tokenizer = micro.build_tokenizer(VOCABULARY, max_length=24)
    text_encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=text_dim,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )
    pipeline = LTXPipeline(scheduler, vae, text_encoder.eval(), tokenizer, transformer)
    pipeline.save_pretrained(folder)
    return folder
