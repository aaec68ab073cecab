"""A complete Wan pipeline with random weights, of the real classes."""

from pathlib import Path

import torch


def save_tiny_pipeline(folder: Path) -> Path:
    """Makes the same WanPipeline folder at every call: 4 latent channels, strides 4 (time) and 4x4."""
    from vggrpo.world import VOCABULARY, micro

    torch.manual_seed(0)
    tokenizer = micro.build_tokenizer(VOCABULARY, max_length=24)
    vae_config = micro.MicroVAEConfig(base_dim=8, z_dim=4, dim_mult=(1, 2, 2))
    transformer_config = micro.MicroTransformerConfig(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, ffn_dim=32, freq_dim=32
    )
    text_config = micro.MicroTextConfig(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    micro.save_pipeline(
        folder,
        vae=micro.build_vae(vae_config),
        transformer=micro.build_transformer(4, 16, transformer_config),
        text_encoder=micro.build_text_encoder(len(tokenizer), text_config),
        tokenizer=tokenizer,
        scheduler=micro.build_scheduler(flow_shift=3.0),
        latents_mean=torch.tensor([0.5, -0.25, 0.0, 1.0]),
        latents_std=torch.tensor([2.0, 0.5, 1.0, 1.5]),
    )
    return folder
