"""The dimensions of a VGGT network."""

from dataclasses import dataclass
from typing import ClassVar, Self

from vggrpo.backbones.network_config import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class VGGTConfig(NetworkConfig):
    """Every dimension of the network. `official()` is the published model's.

    The aggregator is as wide as the encoder; the heads read frame and global tokens side by side, twice as
    wide.
    """

    model_type: ClassVar[str] = "vggt"
    title: ClassVar[str] = "a VGGT"
    zero_allowed: ClassVar[tuple[str, ...]] = ("dpt_layers",)

    num_registers: int = 4
    """Register tokens of an image, in the encoder and again in the aggregator."""
    aggregator_depth: int
    """Pairs of a frame block and a global block."""
    aggregator_heads: int
    rope_base: int = 100
    camera_depth: int
    camera_heads: int
    camera_iterations: int = 4
    dpt_layers: tuple[int, int, int, int]
    """The pairs whose outputs feed the levels of the dense heads; the last one also feeds the camera head."""
    dpt_features: int
    dpt_layer_dims: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_multiple("encoder_dim", "aggregator_heads")
        if self.encoder_dim // self.aggregator_heads % 4:
            raise ValueError(
                f"encoder_dim is {self.encoder_dim} and aggregator_heads {self.aggregator_heads}, but a head "
                "needs a multiple of 4 channels: two for each axis of its rotary codes"
            )
        if 2 * self.encoder_dim % self.camera_heads:
            raise ValueError(
                f"camera_heads is {self.camera_heads}, but must divide twice encoder_dim, "
                f"{2 * self.encoder_dim}"
            )
        if len(self.dpt_layer_dims) != 4 or any(dim % 4 for dim in self.dpt_layer_dims):
            raise ValueError(
                f"dpt_layer_dims is {self.dpt_layer_dims}, but four multiples of 4 are expected: sines and "
                "cosines of two axes are added to them"
            )
        if self.dpt_features % 8:
            raise ValueError(f"dpt_features is {self.dpt_features}, but must be a multiple of 8")
        layers = self.dpt_layers
        if len(layers) != 4 or list(layers) != sorted(set(layers)) or layers[-1] != self.aggregator_depth - 1:
            raise ValueError(
                f"dpt_layers is {layers}, but four increasing numbers of pairs are expected, the last of "
                f"them aggregator_depth - 1, {self.aggregator_depth - 1}"
            )

    @classmethod
    def official(cls) -> Self:
        """The published VGGT-1B: a DINOv2-L encoder and 24 pairs of blocks."""
        return cls(
            patch_size=14,
            encoder_dim=1024,
            encoder_depth=24,
            encoder_heads=16,
            position_grid=37,
            aggregator_depth=24,
            aggregator_heads=16,
            camera_depth=4,
            camera_heads=16,
            dpt_layers=(4, 11, 17, 23),
            dpt_features=256,
            dpt_layer_dims=(256, 512, 1024, 1024),
        )

    @property
    def stitch_points(self) -> tuple[str, ...]:
        """E0 ... E<depth>; A0 after the encoder's final norm; A<j> before pair j of the aggregator, up to the
        first pair that feeds the heads."""
        return (*super().stitch_points, *(f"A{j}" for j in range(self.dpt_layers[0] + 1)))

    @property
    def deep_stitch_points(self) -> tuple[str, ...]:
        """A<j> before the later pairs of the aggregator."""
        return tuple(f"A{j}" for j in range(self.dpt_layers[0] + 1, self.aggregator_depth))
