"""Named colours, and the procedural textures that patterns stand for."""

import colorsys
import math
import random

from vggrpo.world.specs import Pattern, Texture, Vector

COLOURS: dict[str, Vector] = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.96, 0.50, 0.08),
    "yellow": (0.95, 0.85, 0.15),
    "green": (0.16, 0.66, 0.20),
    "cyan": (0.15, 0.80, 0.85),
    "blue": (0.14, 0.28, 0.88),
    "purple": (0.52, 0.18, 0.72),
    "pink": (0.97, 0.52, 0.72),
    "brown": (0.48, 0.30, 0.16),
    "gray": (0.52, 0.52, 0.54),
    "white": (0.94, 0.94, 0.92),
}


def lighter(colour: Vector, share: float) -> Vector:
    """`colour` mixed with white."""
    return blend(colour, (1.0, 1.0, 1.0), share)


def darker(colour: Vector, share: float) -> Vector:
    """`colour` mixed with black."""
    return blend(colour, (0.0, 0.0, 0.0), share)


def blend(first: Vector, second: Vector, share: float) -> Vector:
    """(1 - share) first + share second."""
    r, g, b = (a + share * (c - a) for a, c in zip(first, second, strict=True))
    return (r, g, b)


def jitter(rng: random.Random, colour: Vector, amount: float = 0.04) -> Vector:
    """`colour` with a slightly different brightness and saturation."""
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    saturation *= 1 + amount * (2 * rng.random() - 1)
    value *= 1 + amount * (2 * rng.random() - 1)
    return colorsys.hsv_to_rgb(hue, min(saturation, 1.0), min(value, 1.0))


def _unit(angle: float, length: float) -> Vector:
    return (length * math.cos(angle), 0.0, length * math.sin(angle))


def pattern_texture(
    rng: random.Random,
    pattern: Pattern,
    colour: Vector,
    second_colour: Vector,
    cell: float,
    phases: Vector | None = None,
    sharpness: float = 2.0,
) -> Texture:
    """A texture whose cells (checker squares, stripes, blobs) are about `cell` scene units wide.

    Stripes run along the local y axis. `phases` (in periods) shifts the waves; by default they are random.
    """
    frequency = 0.5 / cell
    if phases is None:
        phases = (rng.random(), rng.random(), rng.random())
    if pattern == "cloudy":
        turn = rng.random() * math.pi
        vectors = [_unit(turn + k * math.pi / 3, 0.8 * frequency * (1 + 0.3 * k)) for k in range(3)]
        tilted = [(x, 0.6 * frequency * (k - 1), z) for k, (x, _, z) in enumerate(vectors)]
        waves = (tilted[0], tilted[1], tilted[2])
        weights = (0.0, 0.0, 0.35)
    else:
        second_colour = colour if pattern == "plain" else second_colour
        waves = ((frequency, 0.0, 0.0), (0.0, frequency, 0.0), (0.0, 0.0, frequency))
        weights = {
            "checkered": (sharpness, 0.0, 0.0),
            "striped": (0.0, sharpness, 0.0),
            "plain": (0.0, 0.0, 0.0),
        }[pattern]
    return Texture(pattern, colour, second_colour, waves, phases, weights)
