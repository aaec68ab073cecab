"""Draws rooms and open ground around what happens in them."""

import math
import random

from torch import Tensor

from vggrpo.world.captions import ScenePlan
from vggrpo.world.draws import uniform
from vggrpo.world.specs import Surroundings, Texture, Vector
from vggrpo.world.textures import COLOURS, blend, darker, jitter, lighter, pattern_texture

NOWHERE: Vector = (0.0, 0.0, 0.0)
SHAKE_MARGIN = 0.4
"""More than any shake moves a camera, in scene units."""


def draw_light(rng: random.Random, azimuth: float) -> Vector:
    """Unit vector to a light above, to the left or right of a camera at `azimuth`, and behind it."""
    side = uniform(rng, 0.3, 1.1) * (1 if rng.random() < 0.5 else -1)
    light_azimuth, elevation = azimuth + side, uniform(rng, 0.6, 0.9)
    level = math.cos(elevation)
    return (level * math.sin(light_azimuth), -math.sin(elevation), -level * math.cos(light_azimuth))


def draw_surroundings(rng: random.Random, plan: ScenePlan, low: Tensor, high: Tensor) -> Surroundings:
    """A room with space to spare around the region from `low` to `high` [3], or open ground, as planned."""
    cell = uniform(rng, 1.0, 1.5)
    if not plan.is_room:
        ground, sky = jitter(rng, COLOURS[plan.colour]), jitter(rng, COLOURS[plan.sky_colour])
        floor = pattern_texture(rng, plan.floor_pattern, ground, darker(ground, 0.4), cell, sharpness=1.5)
        radius = uniform(rng, 7.0, 9.0)
        dome = _sky(sky, radius)
        return Surroundings(False, NOWHERE, NOWHERE, radius, floor, dome, dome)
    wall = jitter(rng, blend(COLOURS[plan.colour], COLOURS["gray"], 0.25))
    bright, dark = lighter(wall, 0.65), blend(wall, (0.2, 0.2, 0.2), 0.5)
    spare = [SHAKE_MARGIN + uniform(rng, 0.1, 0.9) for _ in range(4)]
    top = min(float(low[1]) - SHAKE_MARGIN - uniform(rng, 0.0, 0.6), -2.4)
    return Surroundings(
        is_room=True,
        lower=(float(low[0]) - spare[0], top, float(low[2]) - spare[1]),
        upper=(float(high[0]) + spare[2], 0.0, float(high[2]) + spare[3]),
        dome_radius=1.0,
        floor=pattern_texture(rng, plan.floor_pattern, bright, dark, cell, sharpness=1.5),
        wall=pattern_texture(rng, "cloudy", lighter(wall, 0.12), darker(wall, 0.12), cell=2.0),
        ceiling=pattern_texture(rng, "plain", lighter(wall, 0.7), lighter(wall, 0.7), cell=1.0),
    )


def _sky(zenith: Vector, radius: float) -> Texture:
    """Pale at the horizon, of the colour `zenith` at the top of a dome."""
    upwards = (0.0, -0.5 / radius, 0.0)
    return Texture("cloudy", lighter(zenith, 0.75), zenith, (upwards,) * 3, (-0.25,) * 3, (0.0, 0.5, 0.0))
