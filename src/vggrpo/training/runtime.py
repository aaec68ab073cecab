"""Device, threads and autocast of a run."""

from contextlib import AbstractContextManager

import torch

from vggrpo.backbones import VideoBackbone, load_video_backbone
from vggrpo.config import ConfigError, RunSettings


def prepare(settings: RunSettings) -> None:
    """Sets the number of CPU threads, if the settings give one."""
    if settings.threads:
        torch.set_num_threads(settings.threads)


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA if there is any, else the CPU.

    Raises:
        ConfigError: if there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}, expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r}, but PyTorch sees no CUDA device here; use cpu or auto")
    return device


def open_video_model(
    name: str, settings: RunSettings, device: torch.device, gradient_checkpointing: bool = False
) -> VideoBackbone:
    """The video model called `name`, with the run's precision; loads no weights yet."""
    return load_video_backbone(
        name,
        device=device,
        precision=settings.precision,
        gradient_checkpointing=gradient_checkpointing,
        weight_dtype=torch.bfloat16 if settings.weights == "bfloat16" else torch.float32,
    )


def autocast(precision: str, device: torch.device | str = "cpu") -> AbstractContextManager:
    """The forward pass' autocast: none in float32."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")
