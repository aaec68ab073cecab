"""Attention kernels of a single model, tiles, and activations on the CPU: switches without side effects."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _check_attention_backend_requirements,
)
from diffusers.utils import logging as diffusers_logging

from vggrpo.config.errors import ConfigError


def check_attention_backend(name: str) -> None:
    """Makes sure that diffusers has an attention kernel of that name, and that what it needs is installed.

    Raises:
        ConfigError: if not.
    """
    names = [backend.value for backend in AttentionBackendName]
    if name not in names:
        raise ConfigError(f"attention_backend is {name!r}, but diffusers has {', '.join(names)}")
    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except (RuntimeError, ImportError) as error:
        raise ConfigError(
            f"attention_backend is {name!r}, which cannot be used here: {error}; install what it needs, or "
            "leave the choice to PyTorch"
        ) from error


def use_attention_backend(transformer: Any, name: str) -> None:
    """Makes this model's attention use the kernel called `name`.

    diffusers would make it the choice of every other model of the process too; here that stays as it was.
    """
    of_process, verbosity = _AttentionBackendRegistry._active_backend, diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()  # it warns that the interface is experimental
    try:
        transformer.set_attention_backend(name)
    finally:
        _AttentionBackendRegistry.set_active_backend(of_process)
        diffusers_logging.set_verbosity(verbosity)


@contextmanager
def tiled(vae: Any, enabled: bool) -> Iterator[None]:
    """Within the context the autoencoder works in overlapping tiles, of its own size, if `enabled`."""
    before = vae.use_tiling
    vae.use_tiling = enabled
    try:
        yield
    finally:
        vae.use_tiling = before


def activations_on_cpu(enabled: bool, device: torch.device) -> AbstractContextManager[object]:
    """Within the context what a backward pass will need waits on the CPU, if `enabled`.

    Of checkpointed blocks that is their inputs; they come back, bit for bit, when their turn comes.
    """
    if not enabled:
        return nullcontext()
    return torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda")
