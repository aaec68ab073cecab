"""Vision-transformer parts shared by the geometry backbones: attention, block, and the DINOv2 image encoder.

Written from the published architecture of DINOv2 (Oquab et al., 2023); the parameter names are our own,
each backbone maps them to its upstream's.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Rotation = Callable[[Tensor], Tensor]
"""Turns queries and keys [N, heads, L, d] by their tokens' positions (rotary codes)."""

LONGEST_EXPLICIT_SEQUENCE = 512


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision values as float32; others as they are."""
    return x.float() if x.dtype.itemsize < 4 else x


def as_maps(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, T, h*w, C] as maps [B*T, C, h, w] in channels-last memory."""
    return tokens.flatten(0, 1).unflatten(1, grid).permute(0, 3, 1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention over [N, heads, L, d].

    On a CPU the fused kernel's backward pass is slow (in bfloat16 seven times slower than the formula
    written out), so short sequences take the formula there.
    """
    if query.device.type == "cpu" and query.shape[-2] <= LONGEST_EXPLICIT_SEQUENCE:
        weights = torch.softmax((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1), dim=-1)
        return weights.to(value.dtype) @ value
    return F.scaled_dot_product_attention(query, key, value)


class Attention(nn.Module):
    """Multi-head self-attention over the tokens of one sequence, [N, L, C] to [N, L, C].

    With `qk_norm_eps` queries and keys are normalised per head, before any rotation.
    """

    def __init__(self, dim: int, num_heads: int, qk_norm_eps: float | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.query_norm = self.key_norm = None
        if qk_norm_eps is not None:
            self.query_norm = nn.LayerNorm(dim // num_heads, eps=qk_norm_eps)
            self.key_norm = nn.LayerNorm(dim // num_heads, eps=qk_norm_eps)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, rotate: Rotation | None = None) -> Tensor:
        n, length, dim = tokens.shape
        qkv = self.qkv(tokens).view(n, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotate is not None:
            query, key = rotate(query), rotate(key)
        # Under autocast norms and rotations are float32.
        mixed = attend(query.to(value.dtype), key.to(value.dtype), value)
        return self.proj(mixed.transpose(1, 2).reshape(n, length, dim))


class Mlp(nn.Module):
    """Linear, exact GELU, Linear; to `out_dim` channels, by default as many as came."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, out_dim or dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Recomputable(nn.Module):
    """A part of a network that backward passes can compute anew, instead of keeping what they need of it."""

    recompute: bool = False

    def recomputed(self, run: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """`run(*inputs)`, of which only the inputs are kept where `recompute` is set."""
        if self.recompute and torch.is_grad_enabled():
            # Nothing in these networks is random.
            return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
        return run(*inputs)


class Block(Recomputable):
    """Pre-norm transformer block, optionally with a learned gain per channel on each branch (layer scale)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: int,
        layer_scale: bool,
        eps: float = 1e-6,
        qk_norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attention = Attention(dim, num_heads, qk_norm_eps)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.scale1 = nn.Parameter(torch.ones(dim)) if layer_scale else None
        self.scale2 = nn.Parameter(torch.ones(dim)) if layer_scale else None

    def forward(self, tokens: Tensor, rotate: Rotation | None = None) -> Tensor:
        return self.recomputed(self._run, tokens, rotate)

    def _run(self, tokens: Tensor, rotate: Rotation | None) -> Tensor:
        mixed = self.attention(self.norm1(tokens), rotate)
        tokens = tokens + (mixed if self.scale1 is None else self.scale1 * mixed)
        mixed = self.mlp(self.norm2(tokens))
        return tokens + (mixed if self.scale2 is None else self.scale2 * mixed)


class ImageEncoder(nn.Module):
    """The DINOv2 vision transformer: images to one token per patch, class and register tokens in front.

    Positions are a learned square table, resized bicubically to the grid of the images. `antialias` False
    resizes by the scale factor (grid + 0.1) / table as DINOv2's published models do (Any4D); True resizes
    to the size with an antialias filter (VGGT).
    """

    def __init__(
        self,
        *,
        patch_size: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: int,
        position_grid: int,
        num_registers: int = 0,
        antialias: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.position_grid = position_grid
        self.antialias = antialias
        self.num_special_tokens = 1 + num_registers
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position_table = nn.Parameter(torch.zeros(1, 1 + position_grid**2, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, num_registers, dim)) if num_registers else None
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio, layer_scale=True, eps=eps) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps)

    def position_code(self, grid: tuple[int, int]) -> Tensor:
        """The position table resized to `grid` = (h, w), [1, h*w, C]."""
        table = self.position_table[:, 1:]
        side = self.position_grid
        if grid == (side, side):
            return table
        image = at_least_float32(table).reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if self.antialias:
            resized = F.interpolate(image, size=grid, mode="bicubic", antialias=True)
        else:
            factor = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
            resized = F.interpolate(image, scale_factor=factor, mode="bicubic")
        return resized.flatten(2).transpose(1, 2).to(table.dtype)

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] to tokens [N, S + h*w, C]: class, registers, patches."""
        patches = self.patch_embed(images)
        grid = (patches.shape[2], patches.shape[3])
        patches = patches.flatten(2).transpose(1, 2) + self.position_code(grid)
        special = self.class_token + self.position_table[:, :1]
        if self.register_tokens is not None:
            special = torch.cat([special, self.register_tokens], dim=1)
        return torch.cat([special.expand(len(patches), -1, -1).to(patches.dtype), patches], dim=1)

    def drop_before(self, block: int) -> None:
        """Deletes patch embedding, special tokens, positions, and the blocks before number `block`.

        The remaining blocks keep their numbers. `finish` works from `block` on; `embed` no longer does. A
        number beyond the blocks' stands for what follows the encoder: then the norm goes too.
        """
        unused = ["patch_embed", "class_token", "position_table", "register_tokens"]
        if block > len(self.blocks):
            unused.append("norm")
        for name in unused:
            if hasattr(self, name):
                delattr(self, name)
        for index in range(min(block, len(self.blocks))):
            self.blocks[index] = nn.Identity()

    def finish(self, tokens: Tensor, first_block: int = 0) -> Tensor:
        """Tokens before block `first_block` [N, S + h*w, C] to patch features [N, h*w, C]."""
        for block in self.blocks[first_block:]:
            tokens = block(tokens)
        return self.norm(tokens[:, self.num_special_tokens :])
