"""The optimizer, its learning-rate schedule, and how both are written to disk without pickles."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vggrpo.config import CorruptFileError, LoopSettings
from vggrpo.io import load_tensors


def warmup_cosine(step: int, total_steps: int, warmup_steps: int, floor: float = 0.0) -> float:
    """Factor on the learning rate at `step` (zero-based): linear warm-up, then a cosine from 1 down to
    `floor`.

    The first step already trains (factor 1 / warmup_steps), and the factor is a function of the step alone,
    so that a resumed run needs no scheduler state.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def parameter_group(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> dict:
    """An AdamW parameter group that remembers its base learning rate for `set_learning_rate`."""
    return {"params": list(parameters), "lr": lr, "base_lr": lr, "weight_decay": weight_decay}


def adamw(groups: list[dict], settings: LoopSettings) -> torch.optim.AdamW:
    """AdamW over `groups` with the settings' moments."""
    return torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to `factor` times its base."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm over all gradients, as a scalar tensor."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, "<parameter index>.<state name>", ready for safetensors."""
    return {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores what `optimizer_tensors` wrote into an optimizer over the same parameters.

    Raises:
        ValueError: as `optimizer_state`; the optimizer is then unchanged.
    """
    state = optimizer_state(optimizer, tensors)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> dict[int, dict[str, Tensor]]:
    """What `optimizer_tensors` wrote, as the state of an optimizer over the same parameters.

    Raises:
        ValueError: if a parameter index does not exist here, or a moment's shape does not fit its parameter.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index_text, name = key.split(".", 1)
        index = int(index_text)
        if index >= len(parameters):
            raise ValueError(
                f"the saved optimizer has a state for parameter {index}, but this one has {len(parameters)} "
                "parameters"
            )
        if value.ndim and value.shape != parameters[index].shape:
            raise ValueError(
                f"the saved optimizer state {key} has shape {tuple(value.shape)}, "
                f"but its parameter has {tuple(parameters[index].shape)}"
            )
        state.setdefault(index, {})[name] = value.clone()
    return state


def read_state(
    weights: Mapping[Path, Mapping[str, Tensor]], optimizers: Mapping[Path, torch.optim.Optimizer]
) -> dict[Path, dict[str, Tensor]]:
    """The tensors of a checkpoint's files, before any of them is used.

    Args:
        weights: by file, the tensors that it must have by name, in the same shapes.
        optimizers: by file.

    Raises:
        FileNotFoundError: if a file is missing.
        CorruptFileError: if one is damaged, or of another model.
    """
    found = {path: load_tensors(path) for path in (*weights, *optimizers)}
    for path, expected in weights.items():
        shapes, fit = (
            {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            for tensors in (found[path], expected)
        )
        wrong = sorted(name for name in shapes.keys() | fit.keys() if shapes.get(name) != fit.get(name))
        if wrong:
            name = wrong[0]
            raise CorruptFileError(
                f"{path} is of another model: {name} has shape {shapes.get(name, 'none')}, expected "
                f"{fit.get(name, 'none')} ({len(wrong)} tensors differ)"
            )
    for path, optimizer in optimizers.items():
        try:
            optimizer_state(optimizer, found[path])
        except ValueError as error:
            raise CorruptFileError(f"{path} is of another model: {error}") from error
    return found
