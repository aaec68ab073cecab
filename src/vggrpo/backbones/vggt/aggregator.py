"""VGGT's aggregator: pairs of blocks, one within each view and one over all views."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vggrpo.backbones.vggt.config import VGGTConfig
from vggrpo.backbones.vggt.rotary import AxialRotation, patch_positions
from vggrpo.backbones.vit import Block


class Aggregator(nn.Module):
    """Alternating attention over camera, register and patch tokens of every view.

    Rotary codes tell where in its view a patch is, in both kinds of blocks; they do not tell views apart.
    What does is the first view's own camera and register tokens, which make it the reference.
    """

    EPS = 1e-5

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = config.encoder_dim
        self.rope_base = config.rope_base
        self.head_dim = dim // config.aggregator_heads
        self.layers = config.dpt_layers
        self.num_special_tokens = 1 + config.num_registers
        # [first view or others, tokens, dim]
        self.camera_token = nn.Parameter(torch.zeros(2, 1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(2, config.num_registers, dim))

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(
                Block(
                    dim,
                    config.aggregator_heads,
                    config.mlp_ratio,
                    layer_scale=True,
                    eps=self.EPS,
                    qk_norm_eps=self.EPS,
                )
                for _ in range(config.aggregator_depth)
            )

        self.frame_blocks, self.global_blocks = blocks(), blocks()

    def begin(self, features: Tensor) -> Tensor:
        """Encoder features [B, T, P, C] to tokens [B, T, S + P, C]: camera, registers, patches."""
        batch, views = features.shape[:2]
        kind = torch.arange(views, device=features.device).clamp(max=1)
        special = torch.cat([self.camera_token, self.register_tokens], dim=1)[kind]
        return torch.cat([special.expand(batch, -1, -1, -1).to(features.dtype), features], dim=2)

    def run(
        self, tokens: Tensor, grid: tuple[int, int], first_pair: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The frame block's and the global block's output of every pair in turn, [B, T, S + P, C] both.

        `tokens` are those before pair `first_pair`, on patches of `grid` = (h, w). Each pair is run when it
        is asked for.
        """
        positions = patch_positions(grid, self.num_special_tokens, tokens.device)
        within_views = AxialRotation.of_positions(positions, self.head_dim, self.rope_base)
        across_views = within_views.repeat(tokens.shape[1])
        for index in range(first_pair, len(self.frame_blocks)):
            frame = self.frame_blocks[index](tokens.flatten(0, 1), within_views).view(tokens.shape)
            tokens = self.global_blocks[index](frame.flatten(1, 2), across_views).view(tokens.shape)
            yield frame, tokens

    def finish(self, tokens: Tensor, grid: tuple[int, int], first_pair: int = 0) -> list[Tensor]:
        """As `run`, to the outputs of the pairs that feed the heads, frame and global side by side.

        Each is [B, T, S + P, 2C].
        """
        pairs = enumerate(self.run(tokens, grid, first_pair), first_pair)
        return [torch.cat(outputs, dim=-1) for index, outputs in pairs if index in self.layers]

    def drop_before(self, pair: int) -> None:
        """Deletes the pairs before number `pair`, and if there are any the tokens that `begin` adds.

        The remaining pairs keep their numbers.
        """
        for index in range(pair):
            self.frame_blocks[index] = nn.Identity()
            self.global_blocks[index] = nn.Identity()
        if pair > 0:
            for name in ("camera_token", "register_tokens"):
                if hasattr(self, name):
                    delattr(self, name)
