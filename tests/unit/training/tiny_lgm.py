"""A tiny geometry model and the settings of a latent geometry model of it."""

from pathlib import Path

import torch

from tiny_models import tiny_any4d_config
from vggrpo.backbones.any4d import Any4D
from vggrpo.config import LGMSettings
from vggrpo.lgm import distillation_loss
from vggrpo.world import render_clips, sample_scene


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


def new_geometry_model() -> Any4D:
    """A small Any4D as training starts it."""
    config = tiny_any4d_config()
    geometry = Any4D(config)
    geometry.reset_parameters(depth=3.0, generator=torch.Generator().manual_seed(0))
    return geometry


def save_geometry_model(folder: Path) -> None:
    """A small Any4D of random weights whose rays fan out."""
    geometry, generator = new_geometry_model(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in geometry.network.dense_head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir()
    geometry.save_pretrained(folder)


def save_trained_geometry_model(folder: Path) -> None:
    """A small Any4D that has learnt, of clips of the world, what a camera is: its rewards can be computed."""
    clips = render_clips([sample_scene("train", i) for i in range(8)], num_frames=9, height=16, width=16)
    frames, truth = clips.frames[:, ::4], clips.geometry.select(range(0, 9, 4))
    geometry = new_geometry_model().requires_grad_(True)
    optimizer = torch.optim.AdamW(geometry.parameters(), lr=1e-2)
    for _ in range(40):
        loss, _ = distillation_loss(geometry(frames), truth)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(geometry.parameters(), 1.0)
        optimizer.step()
    folder.mkdir()
    geometry.save_pretrained(folder)
