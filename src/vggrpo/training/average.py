"""An exponential moving average of weights that are trained, to evaluate and to keep in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of some parameters, warmed up so that early averages are not the start.

    Args:
        parameters: by name; the average starts where they are.
        decay: share that the average keeps at an update, in the long run.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the weights reached after `step` (zero-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.parameters.items():
            average = self.tensors[name]
            average.lerp_(parameter.to(average.device), 1 - decay)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from the values of `tensors`, by the parameters' names, wherever they are."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the values of the average and the weights; call twice to return."""
        for name, parameter in self.parameters.items():
            # By value: the weights may be on the CPU just now, which is no place for the average.
            current = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(current)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters are the average within the context."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
