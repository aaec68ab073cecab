"""Device, threads and autocast of a run."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from vggrpo.backbones import VideoBackbone, load_video_backbone
from vggrpo.config import ConfigError, ModelRunSettings, RunSettings, SamplingRunSettings

M_MMAP_THRESHOLD = -3
"""Of `mallopt`, from malloc.h: blocks of this size and more are mapped one by one."""


def prepare(settings: RunSettings, *, distributed: bool = False) -> None:
    """Sets the number of CPU threads, if the settings give one.

    Raises:
        ConfigError: in one of several processes, unless the command can be `distributed`.
    """
    if not distributed and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but this command is one process; start it without "
            "torchrun"
        )
    if settings.threads:
        torch.set_num_threads(settings.threads)


def return_freed_memory() -> None:
    """Makes glibc give freed blocks of 1 MiB and more back to the system at once; another C library is left
    alone.

    By itself it keeps blocks of up to 32 MiB for reuse, and the room between those still in use adds up: the
    peak of a training then grows with the number of samples that have passed through, whatever is kept.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, 2**20)


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
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {name!r}, but PyTorch sees {torch.cuda.device_count()} CUDA devices "
            "here; use another, cpu or auto"
        )
    return device


def hardware(device: torch.device | str) -> str:
    """What decides, beside the settings, how numbers are rounded on `device`."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}"
    kind = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {kind}, {torch.get_num_threads()} threads"


@contextmanager
def set_aside(model: nn.Module) -> Iterator[None]:
    """Within the context a model waits on the CPU and leaves the device to others; its gradients are gone."""
    device = next(model.parameters()).device
    model.zero_grad(set_to_none=True)
    model.to("cpu")
    yield
    model.to(device)


def open_video_model(
    name: str, settings: ModelRunSettings, device: torch.device, gradient_checkpointing: bool = False
) -> VideoBackbone:
    """The video model called `name`, with the run's precision; loads no weights yet."""
    return load_video_backbone(
        name,
        device=device,
        precision=settings.precision,
        gradient_checkpointing=gradient_checkpointing,
        weight_dtype=torch.bfloat16 if settings.weights == "bfloat16" else torch.float32,
        flow_shift=settings.flow_shift if isinstance(settings, SamplingRunSettings) else None,
        efficiency=settings.efficiency,
    )


def autocast(precision: str, device: torch.device | str = "cpu") -> AbstractContextManager:
    """The forward pass' autocast: none in float32."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")
