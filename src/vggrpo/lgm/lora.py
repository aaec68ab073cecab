"""Low-rank adaptation of a geometry model's layers, through peft."""

import re
from collections.abc import Iterable

import torch
from torch import nn

_ADAPTER = "default"


def inject_lora(model: nn.Module, targets: Iterable[str], rank: int, alpha: float, seed: int) -> None:
    """Adds trainable LoRA factors, scale alpha / rank, to the Linear and Conv2d layers named in `targets`.

    Everything else is frozen. The model computes the same as before until the factors are trained: B starts
    at 0, A is drawn from `seed`.

    Raises:
        ValueError: if `rank` or `alpha` is not above 0, `targets` is empty, or the model has LoRA already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if rank < 1 or not alpha > 0:
        raise ValueError(f"LoRA rank is {rank} and alpha {alpha}; both must be above 0")
    # A pattern matches whole names, whereas a list would match every layer that *ends* in one of them.
    pattern = "|".join(re.escape(name) for name in targets)
    if not pattern:
        raise ValueError("there is no Linear or Conv2d layer to add LoRA to")
    if has_lora(model):
        raise ValueError("the model has LoRA already; add it once, to a freshly stitched or loaded model")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", target_modules=pattern)
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=_ADAPTER)


def has_lora(model: nn.Module) -> bool:
    """Whether any layer carries LoRA factors."""
    return any(".lora_A." in name for name, _ in model.named_parameters())


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Adds every low-rank product to its weight and takes the factors away, in place."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
