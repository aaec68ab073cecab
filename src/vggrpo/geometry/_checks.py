"""Argument checks of the geometry modules: errors name the argument, what came and what was expected."""

import torch
from torch import Tensor


def require_trailing(name: str, tensor: Tensor, trailing: tuple[int, ...]) -> None:
    """Raises ValueError unless the tensor is floating point and its last dimensions are `trailing`."""
    if not tensor.is_floating_point():
        raise ValueError(
            f"{name} has dtype {tensor.dtype}, but a floating point tensor is needed; call .float() on it"
        )
    if tuple(tensor.shape[-len(trailing) :]) != trailing:
        wanted = ", ".join(str(n) for n in trailing)
        raise ValueError(f"{name} has shape {list(tensor.shape)}, but its last dimensions must be [{wanted}]")


def require_countable(name: str, tensor: Tensor) -> None:
    """Raises ValueError if the tensor's numbers are too coarse to tell pixels apart (bfloat16, float16)."""
    if tensor.dtype in (torch.bfloat16, torch.float16):
        raise ValueError(
            f"{name} has dtype {tensor.dtype}, in which pixels cannot be told apart; call .float() on it"
        )


def require_shape(name: str, tensor: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    """Raises ValueError unless the tensor has exactly `shape`; `meaning` spells it, like "[B, T, H, W]"."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, but {meaning} = {list(shape)} was expected")


def require_non_negative(name: str, value: float) -> None:
    """Raises ValueError unless value >= 0 (which NaN is not)."""
    if not value >= 0:
        raise ValueError(f"{name} is {value}, but a number of at least 0 was expected")
