"""Frames to normalised latents and back through Wan's causal video autoencoder."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from vggrpo.backbones.base import LatentSpec
from vggrpo.backbones.pipelines.source import fingerprint, load_module, read_json

WAN21_STRIDES = {"scale_factor_spatial": 8, "scale_factor_temporal": 4}


def load_vae(folder: Path | str) -> AutoencoderKLWan:
    """The autoencoder in `folder` (config.json and weights), frozen, float32.

    Raises:
        FileNotFoundError, CorruptFileError: naming the file that is missing or damaged.
    """
    return load_module(AutoencoderKLWan, Path(folder))


def read_latent_spec(folder: Path) -> LatentSpec:
    """What consumers must know about the latents of the autoencoder in `folder`, without loading it."""
    # Configurations saved before Wan2.2 have no strides: they are the class' defaults.
    config = {**WAN21_STRIDES, **read_json(folder / "config.json")}
    return LatentSpec(
        channels=config["z_dim"],
        spatial_stride=config["scale_factor_spatial"],
        temporal_stride=config["scale_factor_temporal"],
        fingerprint=fingerprint(folder),
    )


def latent_statistics(vae: AutoencoderKLWan, like: Tensor) -> tuple[Tensor, Tensor]:
    """The stored mean and standard deviation of the latents [1, C, 1, 1, 1], typed and placed as `like`."""
    mean, std = (
        torch.tensor(values, dtype=torch.float64)
        .to(device=like.device, dtype=like.dtype)
        .view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std


def normalise_latents(latents: Tensor, vae: AutoencoderKLWan) -> Tensor:
    """Raw latents of the autoencoder [B, C, T, H, W] to normalised ones, (z - mean) / std."""
    mean, std = latent_statistics(vae, latents)
    return (latents - mean) / std


def denormalise_latents(latents: Tensor, vae: AutoencoderKLWan) -> Tensor:
    """Normalised latents [B, C, T, H, W] to the autoencoder's raw ones, z * std + mean."""
    mean, std = latent_statistics(vae, latents)
    return latents * std + mean


def encode_frames(vae: AutoencoderKLWan, frames: Tensor) -> Tensor:
    """Frames [B, T, H, W, 3] in [0, 1] to normalised latents [B, C, T_lat, H_lat, W_lat], the posterior's
    mode.

    The caller checks the number of frames: the autoencoder itself silently drops those beyond 4n + 1.
    """
    video = frames.movedim(-1, 1) * 2.0 - 1.0
    return normalise_latents(vae.encode(video).latent_dist.mode(), vae)


def decode_frames(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Normalised latents [B, C, T_lat, H_lat, W_lat] to frames [B, T, H, W, 3] in [0, 1]."""
    video = vae.decode(denormalise_latents(latents, vae), return_dict=False)[0]
    return (video.movedim(1, -1) + 1.0) / 2.0
