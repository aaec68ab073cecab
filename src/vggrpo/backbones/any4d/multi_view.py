"""Any4D's multi-view transformer: views exchange information in every second block."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vggrpo.backbones.any4d.config import Any4DConfig
from vggrpo.backbones.vit import Block


def reference_code(dim: int) -> Tensor:
    """The sinusoidal code of position 0, [0, 1, 0, 1, ...], which marks the tokens of the reference view."""
    return torch.tensor([0.0, 1.0]).repeat(dim // 2)


class MultiViewTransformer(nn.Module):
    """Alternating attention: even blocks over all tokens of all views, odd ones within each view.

    The scale token passes odd blocks untouched. Only the reference view (view 0) carries a code; the other
    views are interchangeable.
    """

    reference_code: Tensor

    def __init__(self, config: Any4DConfig) -> None:
        super().__init__()
        dim = config.multi_view_dim
        self.hooks = config.multi_view_hooks
        self.project = nn.Linear(config.encoder_dim, dim)
        self.register_buffer("reference_code", reference_code(dim))
        self.blocks = nn.ModuleList(
            Block(dim, config.multi_view_heads, config.mlp_ratio, layer_scale=False)
            for _ in range(config.multi_view_depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, features: Tensor, scale_token: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features [B, V, P, C] of all views and the scale token [C].

        Returns the normalised outputs of the two hooked blocks and of the last one, [B, V, P, D] each, and
        the normalised scale token [B, D].
        """
        return self.finish(*self.begin(features, scale_token))

    def begin(self, features: Tensor, scale_token: Tensor) -> tuple[Tensor, Tensor]:
        """Features and scale token to the patches [B, V, P, D] and the scale token [B, 1, D] before block
        0."""
        patches = self.project(features)
        reference = patches[:, :1] + self.reference_code.to(patches.dtype)
        patches = torch.cat([reference, patches[:, 1:]], dim=1)
        return patches, self.project(scale_token.to(features.dtype)).expand(len(features), 1, -1)

    def run(self, patches: Tensor, scale: Tensor, first_block: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Patches and scale token after each block in turn, from those before block `first_block` on."""
        b, v, p, d = patches.shape
        for index in range(first_block, len(self.blocks)):
            block = self.blocks[index]
            if index % 2 == 0:
                tokens = block(torch.cat([patches.reshape(b, v * p, d), scale], dim=1))
                patches, scale = tokens[:, :-1].reshape(b, v, p, d), tokens[:, -1:]
            else:
                patches = block(patches.reshape(b * v, p, d)).view(b, v, p, d)
            yield patches, scale

    def finish(self, patches: Tensor, scale: Tensor, first_block: int = 0) -> tuple[list[Tensor], Tensor]:
        """As `forward`, from the patches and the scale token before block `first_block` on.

        Hooks before that block are left out.
        """
        hooked, last = [], (patches, scale)
        for index, last in enumerate(self.run(patches, scale, first_block), first_block):
            if index in self.hooks:
                hooked.append(self.norm(last[0]))
        return [*hooked, self.norm(last[0])], self.norm(last[1][:, 0])

    def drop_before(self, block: int) -> None:
        """Deletes what `begin` needs and the blocks before number `block`; the others keep their numbers."""
        for name in ("project", "reference_code"):
            if hasattr(self, name):
                delattr(self, name)
        for index in range(block):
            self.blocks[index] = nn.Identity()
