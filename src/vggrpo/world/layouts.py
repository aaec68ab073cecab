"""Draws objects and tells good layouts from bad ones."""

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from vggrpo.world.captions import OBJECT_MOVES, ObjectPlan
from vggrpo.world.draws import uniform
from vggrpo.world.paths import object_motion, steady_camera_motion
from vggrpo.world.specs import CameraPath, Shape, Texture, Vector, WorldObject
from vggrpo.world.textures import COLOURS, darker, jitter, lighter, pattern_texture

Layout = tuple[WorldObject, ...]

SIZE_SCALE = {1: 1.1, 2: 1.0, 3: 0.88}
"""Objects are smaller where there are more of them."""
PALE = ("white", "yellow", "cyan", "pink", "orange")
"""Colours whose pattern is dark; that of the others is pale."""
MOMENTS = 5
"""Of a clip, at which a layout is checked."""
LEAST_DEPTH = 1.4
PICTURE_SHARE = 0.9
"""Part of the picture's half width and height within which an object's centre counts as in view."""
ASPECT = 0.75
CLEARANCE = 0.1
"""Least gap between two objects, in scene units."""
LEAST_SEPARATION = 0.8
"""Sideways distance of two objects in the picture over the sum of their half widths."""


def draw_layout(rng: random.Random, plans: Sequence[ObjectPlan], camera: CameraPath) -> Layout:
    """Objects as planned, around the scene's origin; left and right are the camera's halfway its path."""
    azimuth = 0.5 * (camera.start[3] + camera.end[3])
    return tuple(_draw_object(rng, plan, azimuth, len(plans)) for plan in plans)


def first_good_layout(layouts: Sequence[Layout], camera: CameraPath) -> Layout | None:
    """The first layout whose objects never touch, are in view and not in front of each other.

    In view means at the start and at all but one of the checked moments; not in front of each other means at
    the start and halfway. All layouts must have the same number of objects.
    """
    poses = steady_camera_motion([camera], MOMENTS)[0]
    num_objects = len(layouts[0])
    centres = object_motion(layouts, MOMENTS)[:, :, :num_objects, :3, 3]
    local = ((centres - poses[:, None, :3, 3]).unsqueeze(-2) @ poses[:, None, :3, :3]).squeeze(-2)
    x, y, z = local.unbind(-1)
    edge = PICTURE_SHARE * math.tan(math.radians(0.5 * camera.fov_degrees))
    seen = (z > LEAST_DEPTH) & (x.abs() < edge * z) & (y.abs() < ASPECT * edge * z)
    good = seen[:, 0].all(-1) & (seen.sum(1) >= MOMENTS - 1).all(-1)

    half = torch.tensor([[thing.half_extents for thing in layout] for layout in layouts], dtype=torch.float64)
    is_box = torch.tensor([[thing.shape == "box" for thing in layout] for layout in layouts])
    reach = torch.where(is_box, half[..., [0, 2]].norm(dim=-1), half[..., 0])
    for second in range(num_objects):
        for first in range(second):
            gap = (centres[:, :, first] - centres[:, :, second]).norm(dim=-1).amin(1)
            good &= gap > reach[:, first] + reach[:, second] + CLEARANCE
            apart = (x[..., first] / z[..., first] - x[..., second] / z[..., second]).abs()
            width = half[:, None, first, 0] / z[..., first] + half[:, None, second, 0] / z[..., second]
            good &= (apart > LEAST_SEPARATION * width)[:, [0, MOMENTS // 2]].all(1)
    found = torch.nonzero(good)
    return layouts[int(found[0])] if len(found) else None


def ground_reach(layout: Layout, camera: CameraPath) -> tuple[Tensor, Tensor]:
    """Least and greatest (x, y, z) [3] of the scene frame that the camera or an object's body comes to."""
    positions = steady_camera_motion([camera], 2 * MOMENTS)[0, :, :3, 3]
    centres = object_motion([layout], 2 * MOMENTS)[0, :, : len(layout), :3, 3]
    reach = torch.tensor(
        [math.hypot(o.half_extents[0], o.half_extents[2]) for o in layout], dtype=torch.float64
    )
    low = torch.cat((positions, (centres - reach[:, None]).flatten(0, 1))).amin(0)
    high = torch.cat((positions, (centres + reach[:, None]).flatten(0, 1))).amax(0)
    return low, high


def _half_extents(rng: random.Random, shape: Shape, scale: float) -> Vector:
    if shape == "sphere":
        radius = scale * uniform(rng, 0.42, 0.6)
        return (radius, radius, radius)
    if shape == "cylinder":
        radius = scale * uniform(rng, 0.3, 0.42)
        return (radius, scale * uniform(rng, 0.5, 0.75), radius)
    x, y, z = (scale * uniform(rng, 0.35, 0.57) for _ in range(3))
    return (x, y, z)


def _object_texture(rng: random.Random, plan: ObjectPlan, half: Vector) -> Texture:
    colour = jitter(rng, COLOURS[plan.colour])
    second = darker(colour, 0.65) if plan.colour in PALE else lighter(colour, 0.75)
    return pattern_texture(rng, plan.pattern, colour, second, cell=half[0], phases=(0.25, 0.25, 0.25))


def _draw_object(rng: random.Random, plan: ObjectPlan, azimuth: float, num_objects: int) -> WorldObject:
    half = _half_extents(rng, plan.shape, SIZE_SCALE[num_objects])
    distance = (0.4 if num_objects == 1 else 1.3) * math.sqrt(rng.random())
    angle = uniform(rng, 0, 2 * math.pi)
    x, z = distance * math.cos(angle), distance * math.sin(angle)
    motion = OBJECT_MOVES[plan.move] if plan.move else "rest"
    turn = 1.0 if rng.random() < 0.5 else -1.0
    travel = (0.0, 0.0, 0.0)
    circle_radius = circle_start = circle_sweep = spin = 0.0
    if motion == "linear":
        heading = {"right": 0.0, "away": 0.5, "left": 1.0, "closer": 1.5}[
            plan.move.split()[1]
        ] * math.pi + azimuth
        length = uniform(rng, 1.1, 1.8)
        travel = (length * math.cos(heading), 0.0, length * math.sin(heading))
        x, z = x - 0.5 * travel[0], z - 0.5 * travel[2]
    elif motion == "circular":
        circle_radius, circle_start = uniform(rng, 0.4, 0.6), uniform(rng, 0, 2 * math.pi)
        circle_sweep = turn * uniform(rng, 3.5, 5.5)
        x, z = x + circle_radius * math.cos(circle_start), z + circle_radius * math.sin(circle_start)
    elif motion == "spinning":
        spin = turn * uniform(rng, 1.8, 3.2)
    return WorldObject(
        shape=plan.shape,
        half_extents=half,
        position=(x, -half[1], z),
        yaw=uniform(rng, 0, 2 * math.pi),
        texture=_object_texture(rng, plan, half),
        motion=motion,
        travel=travel,
        circle_radius=circle_radius,
        circle_start=circle_start,
        circle_sweep=circle_sweep,
        spin=spin,
    )
