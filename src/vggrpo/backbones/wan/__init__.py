"""Wan text-to-video models: any diffusers WanPipeline folder or repository."""

from vggrpo.backbones.wan.backbone import WanBackbone
from vggrpo.backbones.wan.comfy import export_comfy_lora
from vggrpo.backbones.wan.text import clean_prompt, encode_text
from vggrpo.backbones.wan.vae import (
    decode_frames,
    denormalise_latents,
    encode_frames,
    load_vae,
    normalise_latents,
    read_latent_spec,
)

__all__ = [
    "WanBackbone",
    "clean_prompt",
    "decode_frames",
    "denormalise_latents",
    "encode_frames",
    "encode_text",
    "export_comfy_lora",
    "load_vae",
    "normalise_latents",
    "read_latent_spec",
]
