"""Colours of ray hits: solid textures, directional and ambient light, soft contact shadows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vggrpo.world.object_hits import ObjectHits
from vggrpo.world.packing import (
    CEILING,
    FIRST_OBJECT,
    FLOOR,
    INWARD_NORMALS,
    PackedScenes,
    RayBundle,
)
from vggrpo.world.tracing import Hits, SurroundingsHits
from vggrpo.world.waves import wave

SHADOW_REACH = 1.6
"""Radius of a contact shadow over the object's own."""
SHADOW_DEPTH = 0.5
FADE_START, FADE_RATE = 1.7, 0.16
"""Contrast of patterns at a depth is FADE_START - FADE_RATE * depth: far away they are finer than a pixel."""


def shade(packed: PackedScenes, rays: RayBundle, hits: Hits) -> Tensor:
    """Colours [3, B, T, h, w] in [0, 1] of all hits."""
    colours = _shade_surroundings(packed, rays, hits.behind)
    for channel, values in zip(colours, _shade_objects(packed, rays, hits.objects), strict=True):
        channel.view(-1).index_copy_(0, hits.objects.ray, values)
    return colours


def lambert(ambient: Tensor, cosine: Tensor) -> Tensor:
    """Brightness in [ambient, 1] of a surface whose normal makes `cosine` with the light.

    Lambert's law, wrapped around to the far side of objects, which would otherwise be flat there.
    """
    return ambient + (1 - ambient) * (0.3 + 0.7 * cosine).clamp(min=0)


def _mix(waves: Tensor, row: Tensor, point: Sequence[Tensor]) -> Tensor:
    """The share in [0, 1] of the second colour at points whose texture is column `row` of `waves` [15, n]."""
    shape = point[0].shape

    def parameter(index: int) -> Tensor:
        return waves[index].index_select(0, row).view(shape)

    y = []
    for k in range(3):
        phase = parameter(3 * k) * point[0]
        phase += parameter(3 * k + 1) * point[1]
        phase += parameter(3 * k + 2) * point[2]
        phase += parameter(9 + k)
        y.append(wave(phase))
    value = parameter(12) * (y[0] * y[1] * y[2])
    value += parameter(13) * y[0]
    value += parameter(14) * (y[0] + y[1] + y[2])
    return value.add_(0.5).clamp_(0, 1)


def _shade_surroundings(packed: PackedScenes, rays: RayBundle, hits: SurroundingsHits) -> Tensor:
    depth = hits.depth
    scenes = torch.arange(len(depth))[:, None, None, None]
    row = (hits.surface + scenes * FIRST_OBJECT).flatten()
    mix = _mix(packed.waves[:, :FIRST_OBJECT].flatten(0, 1).T.contiguous(), row, hits.texture_points)
    mix = 0.5 + (mix - 0.5) * (FADE_START - FADE_RATE * depth).clamp_(0, 1)

    normals = torch.tensor(INWARD_NORMALS, dtype=depth.dtype)
    brightness = lambert(packed.ambient[:, None], (packed.light[:, None] * normals).sum(-1))
    brightness[:, CEILING] = torch.where(packed.is_room, brightness[:, CEILING], 1)
    table = (packed.colours[:, :FIRST_OBJECT] * brightness[..., None]).flatten(0, 1).T.contiguous()
    light = torch.where(hits.surface == FLOOR, _contact_shadow(packed, rays, hits.points), 1)
    result = torch.empty(3, *depth.shape, dtype=depth.dtype)
    for channel in range(3):
        first, change = (table[k].index_select(0, row).view(depth.shape) for k in (channel, 3 + channel))
        torch.mul(first + change * mix, light, out=result[channel])
    return result


def _contact_shadow(packed: PackedScenes, rays: RayBundle, points: Sequence[Tensor]) -> Tensor:
    """The share of light left at floor points, dimmed smoothly around each object's footprint."""
    light = torch.ones_like(points[0])
    for slot in range(packed.shapes.shape[1]):
        rows = torch.nonzero(packed.shapes[:, slot]).squeeze(1)
        if rows.numel() == 0:
            continue
        centre = rays.object_to_scene[rows, :, slot, :3, 3].to(light.dtype)[..., None, None]
        half = packed.half_extents[rows, slot]
        inverse = 1 / (SHADOW_REACH * torch.maximum(half[:, 0], half[:, 2]))[:, None, None, None]
        right = (points[0][rows] - centre[:, :, 0]) * inverse
        ahead = (points[2][rows] - centre[:, :, 2]) * inverse
        darkness = (1 - right * right - ahead * ahead).clamp_(min=0)
        light[rows] *= 1 - SHADOW_DEPTH * darkness
    return light


def _shade_objects(packed: PackedScenes, rays: RayBundle, hits: ObjectHits) -> Sequence[Tensor]:
    """Three colour channels [N] of object hits."""
    dtype = hits.depth.dtype
    num_scenes, num_frames, num_slots = rays.object_to_scene.shape[:3]
    to_object = rays.object_to_scene[..., :3, :3].mT.to(dtype)
    light = (to_object * packed.light[:, None, None, None]).sum(-1).flatten(0, 2).T.contiguous()
    cosine = torch.zeros_like(hits.depth)
    for axis in range(3):
        cosine += hits.normal[axis] * light[axis].index_select(0, hits.pose)
    ambient = packed.ambient.repeat_interleave(num_frames * num_slots)
    brightness = lambert(ambient.index_select(0, hits.pose), cosine)

    surfaces = torch.arange(num_scenes * num_slots).view(num_scenes, 1, num_slots).expand(-1, num_frames, -1)
    row = surfaces.flatten().index_select(0, hits.pose)
    point = hits.point
    if rays.distortion is not None:
        point = rays.distortion.slide_on_objects(hits.pose, point, hits.normal)
    mix = _mix(packed.waves[:, FIRST_OBJECT:].flatten(0, 1).T.contiguous(), row, point)
    table = packed.colours[:, FIRST_OBJECT:].flatten(0, 1).T.contiguous()
    return [
        (table[channel].index_select(0, row) + table[3 + channel].index_select(0, row) * mix) * brightness
        for channel in range(3)
    ]
