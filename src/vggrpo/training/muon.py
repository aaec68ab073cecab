"""Muon for matrices and convolutions, AdamW for everything else.

Muon (Jordan et al., 2024) replaces a weight matrix' momentum by the nearest semi-orthogonal matrix, so that
every direction moves equally far. torch.optim.Muon takes matrices only; here a convolution [out, in, ...]
counts as the matrix [out, in * ...]. Small convolutional autoencoders reach a given error in a fraction of
AdamW's steps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vggrpo.config import LoopSettings
from vggrpo.training.optim import adamw, parameter_group

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic coefficients that push all singular values to about 1 in five iterations, as published with Muon.
"""


def orthogonalise(matrix: Tensor, iterations: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Approximately the nearest semi-orthogonal matrix to [m, n]: singular values in about [.7, 1.2].

    `dtype` is that of the iterations; bfloat16 does (Muon was published with it).
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = (x / (x.norm() + 1e-7)).to(dtype)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for parameters of two or more dimensions.

    Args:
        params: parameters or groups; every parameter needs at least two dimensions.
        lr: spectral norm of an update, before the factor sqrt(max(1, out / in)).
        momentum: Nesterov momentum.
        weight_decay: decoupled.
        dtype: in which the momentum is orthogonalised.

    Raises:
        ValueError: for a parameter of fewer than two dimensions.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    raise ValueError(
                        f"Muon got a parameter of shape {tuple(parameter.shape)}; it needs matrices or "
                        "convolutions, give vectors to AdamW"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer = state["momentum_buffer"]
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(buffer, group["momentum"]).flatten(1)
                update = orthogonalise(update, dtype=self.dtype).view_as(parameter)
                rows, columns = update.flatten(1).shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)
        return loss


def muon_and_adamw(
    model: nn.Module,
    muon_lr: float,
    settings: LoopSettings,
    adamw_modules: Sequence[str] = (),
    dtype: torch.dtype = torch.float32,
) -> list[torch.optim.Optimizer]:
    """Muon over the matrices and convolutions of `model`, AdamW over the rest.

    A weight with a side of three or less (a first convolution on colours, a last one to them) has too few
    directions to orthogonalise and goes to AdamW, and so does everything in `adamw_modules` (names as in
    `named_modules`). `dtype` is that of Muon's iterations.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        excluded = any(name.startswith(f"{module}.") for module in adamw_modules)
        is_matrix = parameter.ndim >= 2 and min(parameter.flatten(1).shape) > 3
        (matrices if is_matrix and not excluded else rest).append(parameter)
    return [
        Muon([parameter_group(matrices, muon_lr)], lr=muon_lr, dtype=dtype),
        adamw([parameter_group(rest, settings.lr, settings.weight_decay)], settings),
    ]
