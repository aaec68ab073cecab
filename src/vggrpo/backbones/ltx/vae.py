"""Frames to normalised latents and back through LTX-Video's autoencoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor

from vggrpo.backbones.base import LatentSpec
from vggrpo.backbones.pipelines.source import fingerprint, read_json

NOISE_SEED = 0
"""Of the noise that some decoders add inside; a constant, so that latents have one video."""


def read_latent_spec(folder: Path) -> LatentSpec:
    """What consumers must know about the latents of the autoencoder in `folder`, without loading it."""
    with torch.device("meta"):
        vae = AutoencoderKLLTXVideo.from_config(read_json(folder / "config.json"))
    return LatentSpec(
        channels=vae.config.latent_channels,
        spatial_stride=vae.spatial_compression_ratio,
        temporal_stride=vae.temporal_compression_ratio,
        fingerprint=fingerprint(folder),
    )


def encode_frames(vae: AutoencoderKLLTXVideo, frames: Tensor) -> Tensor:
    """Frames [B, T, H, W, 3] in [0, 1] to normalised latents [B, C, T_lat, H_lat, W_lat], the posterior's
    mode."""
    mean, std = _statistics(vae)
    video = frames.movedim(-1, 1) * 2.0 - 1.0
    return (vae.encode(video).latent_dist.mode() - mean) / std


def decode_frames(vae: AutoencoderKLLTXVideo, latents: Tensor) -> Tensor:
    """Normalised latents [B, C, T_lat, H_lat, W_lat] to frames [B, T, H, W, 3] in [0, 1].

    A decoder that denoises as well (`timestep_conditioning`, from version 0.9.1 on) takes the latents for
    clean, as LTXPipeline does by default.
    """
    mean, std = _statistics(vae)
    levels = latents.new_zeros(len(latents)) if vae.config.timestep_conditioning else None
    with _own_noise(vae, latents.device):
        video = vae.decode(latents * std + mean, levels, return_dict=False)[0]
    # Unlike Wan's, this decoder does not end in a clamp.
    return ((video.movedim(1, -1) + 1.0) / 2.0).clamp(0.0, 1.0)


def _statistics(vae: AutoencoderKLLTXVideo) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation of raw latents [1, C, 1, 1, 1], which are stored with the weights."""
    mean, std = (values.view(1, -1, 1, 1, 1) for values in (vae.latents_mean, vae.latents_std))
    return mean, std / vae.config.scaling_factor


@contextmanager
def _own_noise(vae: AutoencoderKLLTXVideo, device: torch.device) -> Iterator[None]:
    """Within the context the decoder's noise, if it adds any, is the same at every call."""
    if not any(vae.config.decoder_inject_noise):
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(NOISE_SEED)
        yield
