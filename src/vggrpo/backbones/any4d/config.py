"""The dimensions of an Any4D network, and their config.json."""

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Any4DConfig:
    """Every dimension of the network. `official()` is the published model's."""

    patch_size: int
    encoder_dim: int
    encoder_depth: int
    encoder_heads: int
    multi_view_dim: int
    multi_view_depth: int
    multi_view_heads: int
    multi_view_hooks: tuple[int, int]
    """The multi-view blocks whose outputs feed the second and third level of the dense heads."""
    dpt_features: int
    dpt_layer_dims: tuple[int, int, int, int]
    position_grid: int = 8
    """Side of the encoder's square table of learned positions; other grids are interpolated from it."""
    scale_dim: int = 32
    scale_layers: int = 2
    pose_units: int = 2
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            values = value if isinstance(value, tuple) else (value,)
            minimum = 0 if field.name == "multi_view_hooks" else 1
            if not all(isinstance(v, int) and not isinstance(v, bool) and v >= minimum for v in values):
                raise ValueError(
                    f"{field.name} is {value!r}, but whole numbers of at least {minimum} are expected"
                )
        for part in ("encoder", "multi_view"):
            dim, heads = getattr(self, f"{part}_dim"), getattr(self, f"{part}_heads")
            if dim % heads:
                raise ValueError(f"{part}_dim is {dim}, but must be a multiple of {part}_heads, {heads}")
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
    def official(cls) -> "Any4DConfig":
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
        """Names of the places at which the network can be entered, from the first to the last."""
        return (*(f"E{k}" for k in range(self.encoder_depth + 1)), "F")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Any4DConfig":
        """The inverse of `to_dict`.

        Raises:
            ValueError: for an unknown or missing key, or a value that no network can have.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key in values:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{key!r} is not a setting of an Any4D network{hint}")
        missing = [
            name
            for name, field in fields.items()
            if name not in values and field.default is dataclasses.MISSING
        ]
        if missing:
            raise ValueError(f"the Any4D settings lack {', '.join(missing)}")
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)
