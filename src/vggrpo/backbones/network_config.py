"""The dimensions of a geometry network, and their config.json: what all networks' configurations share."""

import dataclasses
import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """Base of a network's configuration: a frozen dataclass of whole numbers and tuples of them.

    Every network begins with the DINOv2 image encoder, whose dimensions are here.
    """

    model_type: ClassVar[str]
    """The network's name in config.json and models.yaml."""
    title: ClassVar[str]
    """The network's name with its article, for messages."""
    zero_allowed: ClassVar[tuple[str, ...]] = ()
    """Fields that number blocks, and may therefore be 0."""

    patch_size: int
    encoder_dim: int
    encoder_depth: int
    encoder_heads: int
    position_grid: int = 8
    """Side of the encoder's square table of learned positions; other grids are interpolated from it."""
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            values = value if isinstance(value, tuple) else (value,)
            minimum = 0 if field.name in self.zero_allowed else 1
            if not all(isinstance(v, int) and not isinstance(v, bool) and v >= minimum for v in values):
                raise ValueError(
                    f"{field.name} is {value!r}, but whole numbers of at least {minimum} are expected"
                )
        self.require_multiple("encoder_dim", "encoder_heads")

    def require_multiple(self, dim: str, heads: str) -> None:
        """Raises ValueError unless the field `dim` is a multiple of the field `heads`."""
        width, number = getattr(self, dim), getattr(self, heads)
        if width % number:
            raise ValueError(f"{dim} is {width}, but must be a multiple of {heads}, {number}")

    @classmethod
    @abstractmethod
    def official(cls) -> Self:
        """The published model's."""

    @property
    def stitch_points(self) -> tuple[str, ...]:
        """Names of the places at which the network can be entered without a loss, from the first to the last.

        E0 ... E<depth> lie before each encoder block and after the last; those of a network follow.
        """
        return tuple(f"E{k}" for k in range(self.encoder_depth + 1))

    @property
    @abstractmethod
    def deep_stitch_points(self) -> tuple[str, ...]:
        """Names of the places behind those, where the heads have lost an input."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ValueError: for an unknown or missing key, or a value that no network can have.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key in values:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{key!r} is not a setting of {cls.title} network{hint}")
        missing = [
            name
            for name, field in fields.items()
            if name not in values and field.default is dataclasses.MISSING
        ]
        if missing:
            raise ValueError(f"the settings of {cls.title} network lack {', '.join(missing)}")
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)
