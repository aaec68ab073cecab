"""What the transformer blocks of a geometry model hand on: a deeper target of distillation than its outputs.

A stitched model has the same blocks as its teacher behind the stitch point, and on the same clip they should
hand on the same tokens. Depth and points can be learnt from each view alone, so a loss on outputs leaves
views unmatched for long; the tokens show every block what it should have seen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def recorded_blocks(backbone: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within the context every forward pass leaves the outputs of the modules `names` in the dictionary.

    Raises:
        AttributeError: if there is no module of a name.
    """
    states: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            states[name] = output

        return hook

    handles = [backbone.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def per_clip(tokens: Tensor, batch: int) -> Tensor:
    """A block's output of `batch` clips, which has one sequence a view or one a clip, as [batch, L, C]."""
    return tokens.unflatten(0, (batch, -1)).flatten(1, 2)


def block_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Mean squared difference of the layer-normalised tokens [B, L, C], over all blocks of the student.

    Blocks read normalised tokens, so their size is left free. The difference is 0 where they agree, about 2
    where they have nothing in common.
    """
    errors = [
        (_normalised(tokens) - _normalised(teacher[name].detach())).square().mean()
        for name, tokens in student.items()
    ]
    return torch.stack(errors).mean()


def _normalised(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens.float(), tokens.shape[-1:])
