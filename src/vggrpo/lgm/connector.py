"""The connector: one 3D convolution from video latents to a geometry model's tokens at a stitch point."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggrpo.backbones.base import GeometryBackbone, StitchPoint
from vggrpo.geometry import SceneGeometry
from vggrpo.lgm.ridge import RidgeSolution
from vggrpo.lgm.unfolding import KERNEL_SIZE, STRIDE, same_padding, token_grid

NO_AUXILIARY: Mapping[str, Any] = MappingProxyType({})


class Connector(nn.Module):
    """Normalised latents [B, C, T, H, W] to a geometry model's tokens: those of patches [B, T, h*w, width]
    and special ones [B, T, S, width].

        patch_tokens = Conv3d(latents) + position,   special_tokens = learned

    both the same for every view or, where the model needs it, view 0's own. A convolution cannot produce
    positional codes, so they are a buffer, bound to the `grid` that it was fitted on and resized bilinearly
    for latents of another size (as image transformers do with their position tables). (h, w) is (ceil(H / 2),
    ceil(W / 2)) at the default stride.

    An entry deep in the model has lost inputs of its heads; `auxiliary` connectors make those.

    Args:
        latent_channels: C.
        width: channels of the tokens at the stitch point.
        grid: (h, w) that `position` belongs to.
        num_special_tokens: S, the tokens beside the patches (class and register tokens); may be 0.
        kernel_size: of the convolution over (time, height, width); odd.
        stride: of the convolution; 1 in time, since every latent frame is one view.
        reference_specials: whether view 0 has special tokens of its own.
        reference_patches: whether view 0 has a positional part of its own, here and in `auxiliary`.
        auxiliary: the width of each lost head input, by name.
    """

    position: Tensor
    auxiliary: nn.ModuleDict

    def __init__(
        self,
        latent_channels: int,
        width: int,
        grid: tuple[int, int],
        num_special_tokens: int = 0,
        kernel_size: tuple[int, int, int] = KERNEL_SIZE,
        stride: tuple[int, int, int] = STRIDE,
        reference_specials: bool = False,
        reference_patches: bool = False,
        auxiliary: Mapping[str, int] = NO_AUXILIARY,
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
        # Of all views, or, with a dimension of 2 in front, of view 0 and of the others.
        self.register_buffer("position", torch.zeros(*((2,) if reference_patches else ()), *grid, width))
        kinds = (2,) if reference_specials else ()
        self.special_tokens = nn.Parameter(torch.zeros(*kinds, num_special_tokens, width))
        self.auxiliary = nn.ModuleDict(
            {
                name: Connector(
                    latent_channels,
                    auxiliary_width,
                    grid,
                    kernel_size=kernel_size,
                    stride=stride,
                    reference_patches=reference_patches,
                )
                for name, auxiliary_width in auxiliary.items()
            }
        )

    @classmethod
    def for_point(cls, point: StitchPoint, latent_channels: int, grid: tuple[int, int]) -> "Connector":
        """An untrained connector of the shape that a stitch point needs."""
        return cls(
            latent_channels,
            point.width,
            grid,
            point.num_special_tokens,
            reference_specials=point.reference_specials,
            reference_patches=point.reference_patches,
            auxiliary={lost.name: lost.width for lost in point.lost},
        )

    @classmethod
    def from_ridge(
        cls,
        solution: RidgeSolution,
        special_tokens: Tensor,
        stride: tuple[int, int, int] = STRIDE,
        auxiliary: Mapping[str, RidgeSolution] = NO_AUXILIARY,
    ) -> "Connector":
        """The connector that ridge regressions found, with special tokens to start from: [S, width], or
        [2, S, width] if view 0 has its own. `auxiliary` are the solutions of lost head inputs."""
        width, latent_channels, kt, kh, kw = solution.weight.shape
        h, w = solution.position.shape[-3:-1]
        connector = cls(
            latent_channels,
            width,
            (h, w),
            special_tokens.shape[-2],
            (kt, kh, kw),
            stride,
            reference_specials=special_tokens.ndim == 3,
            reference_patches=solution.position.ndim == 4,
            auxiliary={name: len(other.bias) for name, other in auxiliary.items()},
        )
        connector._take(solution)
        for name, part in connector._auxiliary():
            part._take(auxiliary[name])
        with torch.no_grad():
            connector.special_tokens.copy_(special_tokens)
        return connector.to(special_tokens.device)

    @torch.no_grad()
    def _take(self, solution: RidgeSolution) -> None:
        self.conv.weight.copy_(solution.weight)
        self.conv.bias.copy_(solution.bias)  # type: ignore[union-attr]
        self.position.copy_(solution.position)

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
            "reference_patches": self.reference_patches,
            "auxiliary": self.auxiliary_widths,
        }

    @property
    def num_special_tokens(self) -> int:
        """S, of a view."""
        return self.special_tokens.shape[-2]

    @property
    def reference_specials(self) -> bool:
        """Whether view 0 has special tokens of its own."""
        return self.special_tokens.ndim == 3

    @property
    def reference_patches(self) -> bool:
        """Whether view 0 has a positional part of its own."""
        return self.position.ndim == 4

    @property
    def auxiliary_widths(self) -> dict[str, int]:
        """The width of each head input that auxiliary connectors make."""
        return {name: connector.conv.out_channels for name, connector in self._auxiliary()}

    def _auxiliary(self) -> Iterator[tuple[str, "Connector"]]:
        for name, module in self.auxiliary.items():
            yield name, cast(Connector, module)

    def finish(self, backbone: GeometryBackbone, point: str, latents: Tensor) -> SceneGeometry:
        """The scene that `backbone` sees when it is entered at `point` from latents [B, C, T, H, W]."""
        patches, specials = self(latents)
        lost = {name: connector(latents)[0] for name, connector in self._auxiliary()}
        return backbone.finish_from(point, patches, specials, self.token_grid(latents), lost)

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
        kinds = torch.arange(latents.shape[2], device=latents.device).clamp(max=1)  # 0, 1, 1, ...
        position, specials = self.position_on(self.token_grid(latents)), self.special_tokens
        if self.reference_patches:
            position = position[kinds]
        tokens = features.permute(0, 2, 3, 4, 1) + position
        special_tokens = specials[kinds] if self.reference_specials else specials
        return tokens.flatten(2, 3), special_tokens.expand(*tokens.shape[:2], -1, -1)

    def token_grid(self, latents: Tensor) -> tuple[int, int]:
        """(h, w) of the tokens of latents [B, C, T, H, W]."""
        _, sh, sw = self.conv.stride
        return token_grid(latents.shape[-2], latents.shape[-1], (1, int(sh), int(sw)))

    def position_on(self, grid: tuple[int, int]) -> Tensor:
        """The positional part [h, w, width] on `grid`: as fitted, or else resized bilinearly.

        [2, h, w, width] if view 0 has its own.
        """
        if grid == self.grid:
            return self.position
        tables = self.position.reshape(-1, *self.position.shape[-3:]).permute(0, 3, 1, 2)
        resized = F.interpolate(tables, size=grid, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
        return resized if self.reference_patches else resized[0]
