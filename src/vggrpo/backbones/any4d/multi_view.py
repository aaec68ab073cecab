"""Any4D's multi-view transformer: views exchange information in every second block."""

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
        patches = self.project(features)
        reference = patches[:, :1] + self.reference_code.to(patches.dtype)
        patches = torch.cat([reference, patches[:, 1:]], dim=1)
        scale = self.project(scale_token.to(features.dtype)).expand(len(features), 1, -1)

        hooked = []
        for index, block in enumerate(self.blocks):
            b, v, p, d = patches.shape
            if index % 2 == 0:
                tokens = block(torch.cat([patches.reshape(b, v * p, d), scale], dim=1))
                patches, scale = tokens[:, :-1].reshape(b, v, p, d), tokens[:, -1:]
            else:
                patches = block(patches.reshape(b * v, p, d)).view(b, v, p, d)
            if index in self.hooks:
                hooked.append(self.norm(patches))
        return [*hooked, self.norm(patches)], self.norm(scale[:, 0])
