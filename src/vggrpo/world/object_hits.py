"""Rays against objects: only the rays near an object are cast at it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.geometry import invert_se3
from vggrpo.world.packing import SHAPE_CODES, PackedScenes, RayBundle

Coordinates = Sequence[Tensor]
BOUND_MARGIN = 1e-4
"""Slack of the picture's rectangle around an object, in ray slopes: far above rounding errors."""


@dataclass(frozen=True)
class ObjectHits:
    """N rays that meet an object.

    Attributes:
        ray: [N] long, index into the flattened [B, T, h, w] rays.
        depth: [N] z-depth.
        pose: [N] long, index into the flattened [B, T, MAX_OBJECTS]: which object, when.
        point: three [N], the hit in the object's frame; `normal`: three [N], the outward unit normal there.
    """

    ray: Tensor
    depth: Tensor
    pose: Tensor
    point: Coordinates
    normal: Coordinates

    def take(self, index: Tensor) -> "ObjectHits":
        """Some of the rays."""

        def chosen(values: Tensor) -> Tensor:
            return values.index_select(0, index)

        return ObjectHits(
            ray=chosen(self.ray),
            depth=chosen(self.depth),
            pose=chosen(self.pose),
            point=[chosen(values) for values in self.point],
            normal=[chosen(values) for values in self.normal],
        )


def cast_at_objects(packed: PackedScenes, rays: RayBundle) -> ObjectHits:
    """The hits of every ray on every object that it meets, hidden or not."""
    camera_to_object = invert_se3(rays.object_to_scene) @ rays.camera_to_scene[:, :, None]
    parts = [
        _cast_at_shape(packed, rays, camera_to_object, SHAPE_CODES[name], intersect, normal)
        for name, intersect, normal in (
            ("sphere", _sphere, _sphere_normal),
            ("box", _box, _box_normal),
            ("cylinder", _cylinder, _cylinder_normal),
        )
    ]
    return ObjectHits(
        ray=torch.cat([part.ray for part in parts]),
        depth=torch.cat([part.depth for part in parts]),
        pose=torch.cat([part.pose for part in parts]),
        point=[torch.cat(values) for values in zip(*(part.point for part in parts), strict=True)],
        normal=[torch.cat(values) for values in zip(*(part.normal for part in parts), strict=True)],
    )


def _cast_at_shape(
    packed: PackedScenes,
    rays: RayBundle,
    camera_to_object: Tensor,
    code: int,
    intersect: Callable[[Coordinates, Coordinates, Coordinates], tuple[Tensor, Tensor]],
    normal_at: Callable[[Coordinates, Coordinates], Coordinates],
) -> ObjectHits:
    """Hits on all n objects of one shape, in all scenes and frames at once."""
    scenes, slots = torch.nonzero(packed.shapes == code, as_tuple=True)
    half_extents = packed.half_extents[scenes, slots]
    poses = camera_to_object.transpose(1, 2)[scenes, slots]
    num_frames, height, width = poses.shape[1], rays.y.shape[2], rays.x.shape[3]

    near = torch.nonzero(_near_rays(rays, scenes, poses, half_extents).flatten()).squeeze(1)
    row = near // (height * width)
    pixel = near - row * (height * width)
    line = pixel // width
    item = torch.arange(len(scenes)).repeat_interleave(num_frames).index_select(0, row)
    x = rays.x[scenes].flatten().index_select(0, item * width + (pixel - line * width))
    y = rays.y[scenes].flatten().index_select(0, item * height + line)

    entries = poses.to(x.dtype)[..., :3, :].flatten(2).flatten(0, 1).T.contiguous()
    matrix = [entry.index_select(0, row) for entry in entries]
    direction = [matrix[4 * k] * x + (matrix[4 * k + 1] * y + matrix[4 * k + 2]) for k in range(3)]
    origin = [matrix[4 * k + 3] for k in range(3)]
    half = [extent.index_select(0, item) for extent in half_extents.T.contiguous()]
    enter, leave = intersect(half, origin, direction)

    hit = torch.nonzero((enter < leave) & (enter > 0)).squeeze(1)
    depth, row = enter.index_select(0, hit), row.index_select(0, hit)
    start, heading, half = ([v.index_select(0, hit) for v in values] for values in (origin, direction, half))
    point = [o + depth * d for o, d in zip(start, heading, strict=True)]
    views = (scenes[:, None] * num_frames + torch.arange(num_frames)).flatten()
    objects = views * packed.shapes.shape[1] + slots.repeat_interleave(num_frames)
    return ObjectHits(
        ray=views.index_select(0, row) * (height * width) + pixel.index_select(0, hit),
        depth=depth,
        pose=objects.index_select(0, row),
        point=point,
        normal=normal_at(half, point),
    )


def _near_rays(rays: RayBundle, scenes: Tensor, camera_to_object: Tensor, half_extents: Tensor) -> Tensor:
    """[n, T, h, w] bool: whether a ray is in the picture's rectangle around an object's bounding box."""
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    corners = (signs * half_extents[:, None].double())[:, None] - camera_to_object[..., None, :3, 3]
    corners = corners @ camera_to_object[..., :3, :3]
    slopes = corners[..., :2] / corners[..., 2:]
    is_ahead = (corners[..., 2] > 0).all(-1)[..., None]
    low = torch.where(is_ahead, slopes.amin(-2) - BOUND_MARGIN, -torch.inf)[..., None, None]
    high = torch.where(is_ahead, slopes.amax(-2) + BOUND_MARGIN, torch.inf)[..., None, None]
    x, y = rays.x[scenes], rays.y[scenes]
    columns = (x >= low[..., 0, :, :]) & (x <= high[..., 0, :, :])
    lines = (y >= low[..., 1, :, :]) & (y <= high[..., 1, :, :])
    return lines & columns


def _slab(half: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1 / direction
    first, second = (-half - origin) * inverse, (half - origin) * inverse
    return torch.minimum(first, second), torch.maximum(first, second)


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The two t of a t^2 + 2 b t + c = 0; the same t twice where there are none."""
    root = (b * b - a * c).clamp_(min=0).sqrt_()
    return (-b - root) / a, (-b + root) / a


def _sphere(half: Coordinates, origin: Coordinates, direction: Coordinates) -> tuple[Tensor, Tensor]:
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    return _roots(a, b, ox * ox + oy * oy + oz * oz - half[0] * half[0])


def _sphere_normal(half: Coordinates, point: Coordinates) -> Coordinates:
    return [p / half[0] for p in point]


def _box(half: Coordinates, origin: Coordinates, direction: Coordinates) -> tuple[Tensor, Tensor]:
    enter, leave = _slab(half[0], origin[0], direction[0])
    for axis in (1, 2):
        near, far = _slab(half[axis], origin[axis], direction[axis])
        enter, leave = torch.maximum(enter, near), torch.minimum(leave, far)
    return enter, leave


def _box_normal(half: Coordinates, point: Coordinates) -> Coordinates:
    scaled = [p / h for p, h in zip(point, half, strict=True)]
    size = [s.abs() for s in scaled]
    largest = torch.maximum(torch.maximum(size[0], size[1]), size[2])
    return [torch.where(own >= largest, s.sign(), 0) for own, s in zip(size, scaled, strict=True)]


def _cylinder(half: Coordinates, origin: Coordinates, direction: Coordinates) -> tuple[Tensor, Tensor]:
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    near, far = _slab(half[1], oy, dy)
    enter, leave = _roots(dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - half[0] * half[0])
    return torch.maximum(enter, near), torch.minimum(leave, far)


def _cylinder_normal(half: Coordinates, point: Coordinates) -> Coordinates:
    x, y, z = (p / h for p, h in zip(point, half, strict=True))
    on_cap = y * y >= x * x + z * z
    return [torch.where(on_cap, 0, x), torch.where(on_cap, y.sign(), 0), torch.where(on_cap, 0, z)]
