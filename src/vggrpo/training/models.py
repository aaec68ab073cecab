"""The models of `vggrpo train`, opened and checked against each other."""

from dataclasses import dataclass

import torch

from vggrpo.backbones import GeometryBackbone, VideoBackbone, load_geometry_backbone
from vggrpo.config import ConfigError, TrainSettings
from vggrpo.lgm import LatentGeometryModel
from vggrpo.training.runtime import open_video_model


@dataclass(frozen=True)
class AlignmentModels:
    """What a policy is made from, what rewards it, and what checks it."""

    policy: VideoBackbone
    """The base model on the device; its parts are loaded when first used."""
    lgm: LatentGeometryModel
    """On the device."""
    geometry: GeometryBackbone
    """The uncut geometry model, on the CPU."""


def open_models(
    settings: TrainSettings, device: torch.device, gradient_checkpointing: bool = False
) -> AlignmentModels:
    """The models that `settings` name.

    Raises:
        ConfigError: for models that do not exist or do not fit the sizes or each other.
        ValueError: if the latent geometry model belongs to another autoencoder.
    """
    policy = open_video_model(settings.base_model, settings, device, gradient_checkpointing)
    try:
        policy.latent_shape(settings.num_frames, settings.height, settings.width)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    lgm = LatentGeometryModel.from_pretrained(settings.lgm_path).to(device)
    lgm.check_latents(policy.latent_spec, settings.base_model)
    geometry = load_geometry_backbone(settings.geometry_model)
    if geometry.patch_size != lgm.backbone.patch_size:
        raise ConfigError(
            f"{settings.geometry_model} has patches of {geometry.patch_size} pixels, but the latent geometry "
            f"model was made from one of {lgm.backbone.patch_size}: name that one as geometry_model"
        )
    return AlignmentModels(policy, lgm, geometry)
