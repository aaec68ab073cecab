"""Wan text-to-video models: any diffusers WanPipeline folder or repository."""

from vggrpo.backbones.wan.backbone import Precision, WanBackbone
from vggrpo.backbones.wan.comfy import export_comfy_lora
from vggrpo.backbones.wan.fuse import fuse_loras
from vggrpo.backbones.wan.lora import LORA_FILE, LoraTargets, lora_file
from vggrpo.backbones.wan.source import fingerprint
from vggrpo.backbones.wan.text import clean_prompt, encode_text, load_tokenizer
from vggrpo.backbones.wan.vae import (
    decode_frames,
    denormalise_latents,
    encode_frames,
    load_vae,
    normalise_latents,
    read_latent_spec,
)

__all__ = [
    "LORA_FILE",
    "LoraTargets",
    "Precision",
    "WanBackbone",
    "clean_prompt",
    "decode_frames",
    "denormalise_latents",
    "encode_frames",
    "encode_text",
    "export_comfy_lora",
    "fingerprint",
    "fuse_loras",
    "load_tokenizer",
    "load_vae",
    "lora_file",
    "normalise_latents",
    "read_latent_spec",
]
