"""A tiny geometry model and the settings of a latent geometry model of it."""

from pathlib import Path

import torch

from tiny_models import tiny_any4d, trained_tiny_any4d
from vggrpo.config import LGMSettings


def lgm_settings(models: Path, **changes: object) -> LGMSettings:
    """Of a folder that holds the models "pipeline" and "geometry"; the run is its "run" unless changed."""
    values = {
        "base_model": str(models / "pipeline"),
        "geometry_model": str(models / "geometry"),
        "output": models / "run",
        "num_frames": 5,
        "height": 16,
        "width": 16,
        "real_videos": "world",
        "prompts": "world",
        "num_prompts": 3,
        "cfg_scale": 1.0,
        "infer_steps": 2,
        "batch_size": 2,
        "held_out_clips": 2,
        "real_clips": 3,
        "generated_clips": 2,
        "gate_clips": 3,
        "noise_clips": 0,
    }
    return LGMSettings.model_validate(values | changes)


def save_geometry_model(folder: Path) -> None:
    """A small Any4D of random weights whose rays fan out."""
    geometry, generator = tiny_any4d(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in geometry.network.dense_head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir()
    geometry.save_pretrained(folder)


def save_trained_geometry_model(folder: Path) -> None:
    """A small Any4D whose rewards can be computed."""
    folder.mkdir()
    trained_tiny_any4d().save_pretrained(folder)
