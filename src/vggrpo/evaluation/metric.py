"""What a description of a metric holds."""

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "watch"]


@dataclass(frozen=True)
class Metric:
    """The description of one metric."""

    name: str
    label: str
    unit: str
    """Empty where the metric has none."""
    better: Better
    """"watch": neither direction is better in itself, but a large change needs an explanation."""
    decimals: int
    """Digits after the point in tables."""
    meaning: str
    blind_spot: str
