"""The dimensions of an Any4D network."""

from dataclasses import dataclass
from typing import ClassVar, Self

from vggrpo.backbones.network_config import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class Any4DConfig(NetworkConfig):
    """Every dimension of the network. `official()` is the published model's."""

    model_type: ClassVar[str] = "any4d"
    title: ClassVar[str] = "an Any4D"
    zero_allowed: ClassVar[tuple[str, ...]] = ("multi_view_hooks",)

    multi_view_dim: int
    multi_view_depth: int
    multi_view_heads: int
    multi_view_hooks: tuple[int, int]
    """The multi-view blocks whose outputs feed the second and third level of the dense heads."""
    dpt_features: int
    dpt_layer_dims: tuple[int, int, int, int]
    scale_dim: int = 32
    scale_layers: int = 2
    pose_units: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_multiple("multi_view_dim", "multi_view_heads")
        if self.multi_view_dim % 2 or self.dpt_features % 2:
            raise ValueError(
                f"multi_view_dim is {self.multi_view_dim} and dpt_features {self.dpt_features}, "
                "but both must be even"
            )
        if len(self.dpt_layer_dims) != 4:
            raise ValueError(f"dpt_layer_dims is {self.dpt_layer_dims}, but four widths are expected")
        if (
            len(self.multi_view_hooks) != 2
            or not self.multi_view_hooks[0] < self.multi_view_hooks[1] < self.multi_view_depth
        ):
            raise ValueError(
                f"multi_view_hooks is {self.multi_view_hooks}, but two increasing block numbers below "
                f"multi_view_depth, {self.multi_view_depth}, are expected"
            )

    @classmethod
    def official(cls) -> Self:
        """The published Any4D: a DINOv2-L encoder and 24 multi-view blocks."""
        return cls(
            patch_size=14,
            encoder_dim=1024,
            encoder_depth=24,
            encoder_heads=16,
            position_grid=37,
            multi_view_dim=768,
            multi_view_depth=24,
            multi_view_heads=12,
            multi_view_hooks=(11, 17),
            dpt_features=256,
            dpt_layer_dims=(96, 192, 384, 768),
            scale_dim=196,
        )

    @property
    def stitch_points(self) -> tuple[str, ...]:
        """E0 ... E<depth>, and F after the encoder's final norm."""
        return (*super().stitch_points, "F")

    @property
    def deep_stitch_points(self) -> tuple[str, ...]:
        """M<j> before block j of the multi-view transformer, whose input the dense heads read too."""
        return tuple(f"M{j}" for j in range(self.multi_view_depth))
