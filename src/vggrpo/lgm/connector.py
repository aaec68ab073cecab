"""The connector: one 3D convolution from video latents to a geometry model's tokens at a stitch point."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggrpo.lgm.ridge import RidgeSolution
from vggrpo.lgm.unfolding import KERNEL_SIZE, STRIDE, same_padding, token_grid


class Connector(nn.Module):
    """Normalised latents [B, C, T, H, W] to patch tokens [B, T, h*w, width] and special tokens [B, T, S,
    width].

        patch_tokens = Conv3d(latents) + position,   special_tokens = learned, the same for every view (or,
                                                                      where the model needs it, view 0's own)

    A convolution cannot produce positional codes, so they are a buffer, bound to the `grid` that it was
    fitted on and resized bilinearly for latents of another size (as image transformers do with their
    position tables). (h, w) is (ceil(H / 2), ceil(W / 2)) at the default stride.

    Args:
        latent_channels: C.
        width: channels of the tokens at the stitch point.
        grid: (h, w) that `position` belongs to.
        num_special_tokens: S, the tokens beside the patches (class and register tokens); may be 0.
        kernel_size: of the convolution over (time, height, width); odd.
        stride: of the convolution; 1 in time, since every latent frame is one view.
        reference_specials: whether view 0 has special tokens of its own.
    """

    position: Tensor

    def __init__(
        self,
        latent_channels: int,
        width: int,
        grid: tuple[int, int],
        num_special_tokens: int = 0,
        kernel_size: tuple[int, int, int] = KERNEL_SIZE,
        stride: tuple[int, int, int] = STRIDE,
        reference_specials: bool = False,
    ) -> None:
        super().__init__()
        if stride[0] != 1:
            raise ValueError(
                f"stride is {stride}, but it must be 1 in time: every latent frame is a view of the scene"
            )
        self.grid = grid
        self.conv = nn.Conv3d(
            latent_channels, width, kernel_size, stride=stride, padding=same_padding(kernel_size)
        )
        self.register_buffer("position", torch.zeros(*grid, width))
        # [S, width] for all views, or [2, S, width] for view 0 and for the others.
        kinds = (2,) if reference_specials else ()
        self.special_tokens = nn.Parameter(torch.zeros(*kinds, num_special_tokens, width))

    @classmethod
    def from_ridge(
        cls, solution: RidgeSolution, special_tokens: Tensor, stride: tuple[int, int, int] = STRIDE
    ) -> "Connector":
        """The connector that a ridge regression found, with special tokens to start from: [S, width], or
        [2, S, width] if view 0 has its own."""
        width, latent_channels, kt, kh, kw = solution.weight.shape
        h, w, _ = solution.position.shape
        connector = cls(
            latent_channels,
            width,
            (h, w),
            special_tokens.shape[-2],
            (kt, kh, kw),
            stride,
            reference_specials=special_tokens.ndim == 3,
        )
        with torch.no_grad():
            connector.conv.weight.copy_(solution.weight)
            connector.conv.bias.copy_(solution.bias)  # type: ignore[union-attr]
            connector.position.copy_(solution.position)
            connector.special_tokens.copy_(special_tokens)
        return connector.to(special_tokens.device)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Connector":
        """An empty connector of the shape that `config` describes."""
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        return cls(**arguments)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values."""
        return {
            "latent_channels": self.conv.in_channels,
            "width": self.conv.out_channels,
            "grid": list(self.grid),
            "num_special_tokens": self.num_special_tokens,
            "kernel_size": list(self.conv.kernel_size),
            "stride": list(self.conv.stride),
            "reference_specials": self.reference_specials,
        }

    @property
    def num_special_tokens(self) -> int:
        """S, of a view."""
        return self.special_tokens.shape[-2]

    @property
    def reference_specials(self) -> bool:
        """Whether view 0 has special tokens of its own."""
        return self.special_tokens.ndim == 3

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Patch tokens [B, T, h*w, width] and special tokens [B, T, S, width] of latents [B, C, T, H, W].

        Computed in the weights' own type, whatever autocast says.

        Raises:
            ValueError: if `latents` is not of five dimensions with the connector's channels.
        """
        channels = self.conv.in_channels
        if latents.ndim != 5 or latents.shape[1] != channels:
            raise ValueError(
                f"latents have shape {list(latents.shape)}, but the connector needs [B, {channels}, T, H, "
                "W]: normalised latents of the autoencoder that it was made for"
            )
        # PyTorch 2.13's bfloat16 gradient of this convolution is wrong on CPUs, even NaN, for clips of fewer
        # frames than the kernel has. It is a small part of the model: float32 costs little anywhere.
        with torch.autocast(latents.device.type, enabled=False):
            features = self.conv(latents.to(self.conv.weight.dtype))  # [B, width, T, h, w]
        tokens = features.permute(0, 2, 3, 4, 1) + self.position_on(self.token_grid(latents))
        specials: Tensor = self.special_tokens
        if self.reference_specials:
            specials = specials[torch.arange(tokens.shape[1], device=tokens.device).clamp(max=1)]
        return tokens.flatten(2, 3), specials.expand(*tokens.shape[:2], -1, -1)

    def token_grid(self, latents: Tensor) -> tuple[int, int]:
        """(h, w) of the tokens of latents [B, C, T, H, W]."""
        _, sh, sw = self.conv.stride
        return token_grid(latents.shape[-2], latents.shape[-1], (1, int(sh), int(sw)))

    def position_on(self, grid: tuple[int, int]) -> Tensor:
        """The positional part [h, w, width] on `grid`: as fitted, or else resized bilinearly."""
        if grid == self.grid:
            return self.position
        table = self.position.permute(2, 0, 1)[None]
        return F.interpolate(table, size=grid, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
