"""One denoiser on several GPUs: its weights shared out, or its tokens.

All processes of a mesh must make the same forward passes, with and without gradients.
"""

from typing import Any

import torch
from diffusers import ContextParallelConfig
from diffusers.hooks.context_parallel import apply_context_parallel
from diffusers.models._modeling_parallel import ParallelConfig
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from vggrpo.config.errors import ConfigError


def shard_frozen(transformer: Any, mesh: DeviceMesh) -> None:
    """Shares the frozen weights out over a mesh (FSDP2), block by block and then the rest.

    A mesh of two dimensions holds copies along its first and shares out along its second (HSDP). Parameters
    that require gradients, those of a LoRA, stay whole on every process, with their gradients: they are
    small, and whoever trains them exchanges and saves them as without a mesh.
    """
    trained: set[nn.Parameter] = {p for p in transformer.parameters() if p.requires_grad}
    for block in _blocks(transformer):
        fully_shard(block, mesh=mesh, ignored_params=trained)
    # FSDP2 would leave the rest whole after a forward pass until a backward pass or a state_dict(). A
    # process that saves the LoRA alone, after passes without gradients, would then be out of step.
    fully_shard(transformer, mesh=mesh, ignored_params=trained, reshard_after_forward=True)


def share_tokens(transformer: Any, mesh: DeviceMesh) -> None:
    """Shares the tokens of each clip out (diffusers' Ulysses attention) over a mesh's dimension "ulysses"; it
    must also have a dimension "ring", of size 1.

    Every process is given the whole clip and returns the whole prediction. The gradient of a parameter is the
    sum of what the processes find, each with the loss of the whole.

    Raises:
        ConfigError: if the attention heads cannot be divided by the mesh.
    """
    degree, heads = mesh["ulysses"].size(), transformer.config.num_attention_heads
    if heads % degree:
        raise ConfigError(
            f"context_parallel is {degree}, but the denoiser has {heads} attention heads, which cannot be "
            f"divided by it; use {_divisors(heads)}"
        )
    config = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=degree))
    # What transformer.enable_parallelism does, which works on accelerators only.
    config.setup(mesh.get_rank(), mesh.size(), torch.device(mesh.device_type), mesh=mesh)
    for module in transformer.modules():
        processor = getattr(module, "processor", None)
        if processor is not None and hasattr(processor, "_parallel_config"):
            processor._parallel_config = config
    apply_context_parallel(transformer, config.context_parallel_config, transformer._cp_plan)
    transformer._parallel_config = config


def require_divisible(tokens: int, degree: int) -> None:
    """
    Raises:
        ConfigError: if the tokens of a clip cannot be shared out.
    """
    if tokens % degree:
        raise ConfigError(
            f"context_parallel is {degree}, but a clip has {tokens} tokens, which cannot be divided by it; "
            f"use {_divisors(tokens, largest=64)}, or another size of clips"
        )


def _blocks(transformer: Any) -> list[nn.Module]:
    names = set(transformer._repeated_blocks)
    return [module for module in transformer.modules() if type(module).__name__ in names]


def _divisors(number: int, largest: int = 1024) -> str:
    return " or ".join(str(d) for d in range(1, min(number, largest) + 1) if number % d == 0)
