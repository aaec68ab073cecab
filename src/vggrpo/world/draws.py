"""Random draws that stay the same for ever: each is one `random()` of Python's Mersenne twister."""

import random
from collections.abc import Sequence
from typing import TypeVar

Choice = TypeVar("Choice")


def uniform(rng: random.Random, low: float, high: float) -> float:
    """A number in [low, high)."""
    return low + (high - low) * rng.random()


def pick(rng: random.Random, choices: Sequence[Choice]) -> Choice:
    """One of `choices`."""
    return choices[int(rng.random() * len(choices))]
