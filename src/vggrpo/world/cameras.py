"""Draws camera paths: what each camera move of a caption means."""

import math
import random

from vggrpo.world.captions import CAMERA_MOVES
from vggrpo.world.draws import uniform
from vggrpo.world.specs import PATH_CHANNELS, CameraPath

SHAKY_SHARE = 0.5
HANDHELD_DRIFT = {
    "pivot_x": 0.4,
    "pivot_y": 0.1,
    "pivot_z": 0.3,
    "azimuth": 0.3,
    "radius": 0.4,
    "height": 0.4,
    "yaw": 0.1,
    "pitch": 0.06,
}
"""What a handheld camera moves in each channel over a clip, beside a slow swing of less."""


def draw_camera(rng: random.Random, move: str) -> CameraPath:
    """A path for one of `CAMERA_MOVES`, steady or shaky at even odds."""
    sign = -1.0 if "left" in move or move in ("moves forward", "sinks") else 1.0
    family = CAMERA_MOVES[move]
    middle = {
        "pivot_x": uniform(rng, -0.15, 0.15),
        "pivot_y": uniform(rng, -0.6, -0.4),
        "pivot_z": uniform(rng, -0.15, 0.15),
        "azimuth": uniform(rng, -0.6, 0.6),
        "radius": uniform(rng, 2.9, 3.6),
        "height": uniform(rng, 0.8, 1.5),
        "yaw": 0.0,
        "pitch": 0.0,
    }
    change = dict.fromkeys(PATH_CHANNELS, 0.0)
    swing = dict.fromkeys(PATH_CHANNELS, 0.0)
    if family == "dolly":
        middle["radius"] = 3.3
        change["radius"] = sign * uniform(rng, 0.9, 1.5)
    elif family == "slide":
        distance = sign * uniform(rng, 1.0, 1.6)
        change["pivot_x"] = distance * math.cos(middle["azimuth"])
        change["pivot_z"] = distance * math.sin(middle["azimuth"])
    elif family == "orbit":
        change["azimuth"] = sign * uniform(rng, 0.4, 0.75)
    elif family == "pan":
        change["yaw"] = sign * uniform(rng, 0.3, 0.5)
    elif family == "crane":
        middle["height"] = uniform(rng, 1.0, 1.4)
        change["height"] = sign * uniform(rng, 0.9, 1.4)
    else:
        size = uniform(rng, 0.8, 1.3)
        for name, drift in HANDHELD_DRIFT.items():
            change[name] = size * drift * (1 if rng.random() < 0.5 else -1)
            swing[name] = 0.3 * size * drift
    shaky = rng.random() < SHAKY_SHARE
    return CameraPath(
        family=family,
        fov_degrees=uniform(rng, 54, 66),
        start=tuple(middle[name] - 0.5 * change[name] for name in PATH_CHANNELS),
        end=tuple(middle[name] + 0.5 * change[name] for name in PATH_CHANNELS),
        swing=tuple(swing[name] for name in PATH_CHANNELS),
        swing_cycles=tuple(uniform(rng, 0.15, 0.35) for _ in PATH_CHANNELS),
        swing_phase=tuple(uniform(rng, 0, 2 * math.pi) for _ in PATH_CHANNELS),
        shake_rotation=uniform(rng, 0.04, 0.06) if shaky else 0.0,
        shake_position=uniform(rng, 0.05, 0.09) if shaky else 0.0,
        shake_seed=int(rng.random() * 2**31),
    )
