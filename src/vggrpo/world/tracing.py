"""Ray casting: where every ray of a batch first meets the world.

Per ray only +, -, *, /, rounding and sqrt occur, which IEEE arithmetic rounds the same way however tensors
are split: a clip is the same bit for bit whatever batch it is rendered in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.world.object_hits import ObjectHits, cast_at_objects
from vggrpo.world.packing import (
    CEILING,
    FIRST_OBJECT,
    FLOOR,
    WALL_FAR,
    WALL_LEFT,
    WALL_NEAR,
    WALL_RIGHT,
    PackedScenes,
    RayBundle,
)

BEND_STEPS = 4
"""Fixed-point steps that find where a ray meets bent surroundings."""
BEND_CLEARANCE = 0.1
"""What bends keeps at least this distance from the camera, in scene units."""


@dataclass(frozen=True)
class Hits:
    """First hits of every ray.

    Attributes:
        depth: [B, T, h, w] z-depth of the first hit.
        surface: [B, T, h, w] long, what was hit: a surface of the surroundings or FIRST_OBJECT + object.
        behind: the surroundings alone, as if there were no objects.
        objects: the rays that first meet an object.
    """

    depth: Tensor
    surface: Tensor
    behind: "SurroundingsHits"
    objects: ObjectHits


@dataclass(frozen=True)
class SurroundingsHits:
    """Where every ray meets the room, or the ground and the sky.

    Attributes:
        depth: [B, T, h, w] z-depth.
        surface: [B, T, h, w] long.
        points: three [B, T, h, w], the hit's coordinates in the scene frame.
        texture_points: three [B, T, h, w], where the texture is read; `points`, but in faulty clips.
    """

    depth: Tensor
    surface: Tensor
    points: Sequence[Tensor]
    texture_points: Sequence[Tensor]


def trace(packed: PackedScenes, rays: RayBundle) -> Hits:
    """Casts every ray into its scene."""
    behind = cast_at_surroundings(packed, rays)
    candidates = cast_at_objects(packed, rays)
    depth = behind.depth.flatten().scatter_reduce(0, candidates.ray, candidates.depth, "amin")
    first = torch.nonzero(candidates.depth == depth.index_select(0, candidates.ray)).squeeze(1)
    objects = candidates.take(first)
    kinds = (FIRST_OBJECT + torch.arange(packed.shapes.shape[1])).repeat(
        rays.object_to_scene[..., 0, 0, 0].numel()
    )
    surface = behind.surface.flatten().index_copy(0, objects.ray, kinds.index_select(0, objects.pose))
    shape = behind.depth.shape
    return Hits(depth.view(shape), surface.view(shape), behind, objects)


def cast_at_surroundings(packed: PackedScenes, rays: RayBundle) -> SurroundingsHits:
    """Casts every ray into its room or onto its ground."""
    parts = []
    rooms = torch.nonzero(packed.is_room).squeeze(1)
    fields = torch.nonzero(~packed.is_room).squeeze(1)
    for rows, intersect in ((rooms, _room), (fields, _open_ground)):
        if rows.numel():
            pose = rays.camera_to_scene[rows]
            direction = rays.directions(pose[..., :3, :3], rows)
            origin = pose[..., :3, 3].to(direction[0].dtype)[..., None, None].unbind(2)
            depth, surface = intersect(packed, rows, origin, direction)
            points = _along(origin, depth, direction)
            if rays.distortion is None:
                parts.append((depth, surface, *points))
                continue
            fault = rays.distortion.chunk(rows)
            for _ in range(BEND_STEPS):
                start = _shifted(packed, rows, origin, fault.displacement(points))
                depth, surface = intersect(packed, rows, start, direction)
                points = _along(start, depth, direction)
            bent = _along(origin, depth, direction)
            parts.append((depth, surface, *bent, *fault.slide(surface, points)))
    order = torch.argsort(torch.cat((rooms, fields)))
    depth, surface, *points = (
        part[0] if len(parts) == 1 else torch.cat(part)[order] for part in zip(*parts, strict=True)
    )
    return SurroundingsHits(depth, surface, points[:3], points[-3:])


def _along(origin: Sequence[Tensor], depth: Tensor, direction: Sequence[Tensor]) -> list[Tensor]:
    """Three coordinates of the points at z-depths along rays."""
    return [o + depth * d for o, d in zip(origin, direction, strict=True)]


def _shifted(
    packed: PackedScenes, rows: Tensor, origin: Sequence[Tensor], shift: Sequence[Tensor]
) -> list[Tensor]:
    """Origins moved by -`shift`, but not nearer than `BEND_CLEARANCE` to walls, ceiling and ground.

    Seen from there, straight surroundings look as bent ones do from `origin`.
    """
    is_room = packed.is_room[rows, None]
    everywhere = torch.full_like(packed.upper[rows], torch.inf)
    above_ground = everywhere.index_fill(1, torch.tensor([1]), 0.0)
    lower = torch.where(is_room, packed.lower[rows], -everywhere) + BEND_CLEARANCE
    upper = torch.where(is_room, packed.upper[rows], above_ground) - BEND_CLEARANCE
    moved = []
    for axis, (start, change) in enumerate(zip(origin, shift, strict=True)):
        least = torch.minimum(lower[:, axis, None, None, None], start)
        most = torch.maximum(upper[:, axis, None, None, None], start)
        moved.append((start - change).clamp(least, most))
    return moved


def _room(
    packed: PackedScenes, rows: Tensor, origin: Sequence[Tensor], direction: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Depth and surface where rays from inside an axis-aligned box leave it."""
    exits = []
    for axis in range(3):
        inverse = 1 / direction[axis]
        upper = packed.upper[rows, axis][:, None, None, None] - origin[axis]
        lower = packed.lower[rows, axis][:, None, None, None] - origin[axis]
        exits.append(torch.maximum(upper * inverse, lower * inverse))
    right, floor, far = (component > 0 for component in direction)
    sideways = torch.minimum(exits[0], exits[2])
    side = torch.where(
        exits[0] <= exits[2], _choose(right, WALL_RIGHT, WALL_LEFT), _choose(far, WALL_FAR, WALL_NEAR)
    )
    surface = torch.where(sideways <= exits[1], side, _choose(floor, FLOOR, CEILING))
    return torch.minimum(sideways, exits[1]), surface


def _open_ground(
    packed: PackedScenes, rows: Tensor, origin: Sequence[Tensor], direction: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Depth and surface of the plane y = 0 within a dome around the scene's origin."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    radius = packed.dome_radius[rows][:, None, None, None]
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - radius * radius
    dome = ((b * b - a * c).sqrt() - b) / a
    ground = -oy / dy
    is_ground = (ground > 0) & (ground < dome)
    return torch.where(is_ground, ground, dome), _choose(is_ground, FLOOR, CEILING)


def _choose(condition: Tensor, if_true: int, if_false: int) -> Tensor:
    """Surfaces by a condition."""
    return condition.long() * (if_true - if_false) + if_false
