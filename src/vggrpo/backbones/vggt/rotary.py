"""Rotary position codes over two axes (Su et al., 2021, per axis), as VGGT's aggregator uses them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AxialRotation:
    """Turns queries and keys by the row and the column of their tokens.

    The first half of a head's channels codes the row, the second the column. Within each, channel i and
    channel i + n/2 of the n are a pair that is turned by position * base^(-2i / n).
    """

    cos: Tensor
    sin: Tensor
    """[L, 2, n/2]: tokens, axes, pairs; float32."""

    @classmethod
    def of_positions(cls, positions: Tensor, head_dim: int, base: float) -> "AxialRotation":
        """For tokens at `positions` [L, 2] = (row, column); at (0, 0) nothing is turned."""
        pairs = head_dim // 4
        exponent = torch.arange(pairs, device=positions.device, dtype=torch.float32) / pairs
        angles = positions.float()[..., None] * base**-exponent
        return cls(angles.cos(), angles.sin())

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., L, head_dim], turned; the precision is at least float32."""
        first, second = x.unflatten(-1, (2, 2, -1)).unbind(-2)
        turned = [first * self.cos - second * self.sin, second * self.cos + first * self.sin]
        return torch.stack(turned, dim=-2).flatten(-3)

    def repeat(self, times: int) -> "AxialRotation":
        """For `times` sequences of the same tokens, one after the other."""
        return AxialRotation(self.cos.repeat(times, 1, 1), self.sin.repeat(times, 1, 1))


def patch_positions(grid: tuple[int, int], num_special: int, device: torch.device) -> Tensor:
    """(row, column) of `num_special` tokens without a place, which get (0, 0), and of the patches of a grid
    (h, w), counted from 1; [num_special + h*w, 2]."""
    rows, columns = (torch.arange(1, side + 1, device=device) for side in grid)
    patches = torch.cartesian_prod(rows, columns)
    return torch.cat([patches.new_zeros(num_special, 2), patches])
