"""A batch of scene specifications as tensors, and the rays of its cameras."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from vggrpo.world.distortion import Distortion
from vggrpo.world.paths import SceneMotion
from vggrpo.world.specs import MAX_OBJECTS, SceneSpec, Texture

FLOOR, WALL_RIGHT, WALL_LEFT, WALL_FAR, WALL_NEAR, CEILING = range(6)
"""Surfaces of the surroundings; the sky of open ground is its CEILING."""
FIRST_OBJECT = 6
NUM_SURFACES = FIRST_OBJECT + MAX_OBJECTS
SHAPE_CODES = {"sphere": 1, "box": 2, "cylinder": 3}
INWARD_NORMALS = ((0, -1, 0), (-1, 0, 0), (1, 0, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0))
"""Of the surroundings' surfaces, in the order above."""


@dataclass(frozen=True)
class PackedScenes:
    """The still part of a batch of scenes.

    Attributes:
        is_room: [B] bool.
        lower, upper: [B, 3] the room's walls in the scene frame.
        dome_radius: [B] of open ground.
        shapes: [B, MAX_OBJECTS] long, codes of `SHAPE_CODES`, 0 where there is no object.
        half_extents: [B, MAX_OBJECTS, 3].
        waves: [B, NUM_SURFACES, 15] wave vectors (9), phases (3) and weights (3) of the textures.
        colours: [B, NUM_SURFACES, 6] first colour, and second minus first.
        light: [B, 3] unit vector to the light, scene frame.
        ambient: [B].
        fov: [B] float64, horizontal field of view in radians.
    """

    is_room: Tensor
    lower: Tensor
    upper: Tensor
    dome_radius: Tensor
    shapes: Tensor
    half_extents: Tensor
    waves: Tensor
    colours: Tensor
    light: Tensor
    ambient: Tensor
    fov: Tensor

    def chunk(self, part: slice) -> "PackedScenes":
        """Some of the scenes."""
        return PackedScenes(**{field.name: getattr(self, field.name)[part] for field in fields(self)})


def _texture_row(texture: Texture) -> list[float]:
    vectors = [component for vector in texture.wave_vectors for component in vector]
    difference = [b - a for a, b in zip(texture.colour, texture.second_colour, strict=True)]
    return [*vectors, *texture.phases, *texture.weights, *texture.colour, *difference]


def pack_scenes(specs: Sequence[SceneSpec], dtype: torch.dtype = torch.float32) -> PackedScenes:
    """Tensors of `specs`, in float64 rounded to `dtype`."""
    empty_texture = [0.0] * 21
    textures, shapes, half_extents = [], [], []
    for spec in specs:
        place = spec.surroundings
        faces = [_texture_row(place.floor), *[_texture_row(place.wall)] * 4, _texture_row(place.ceiling)]
        missing = MAX_OBJECTS - len(spec.objects)
        textures.append(faces + [_texture_row(o.texture) for o in spec.objects] + [empty_texture] * missing)
        shapes.append([SHAPE_CODES[o.shape] for o in spec.objects] + [0] * missing)
        half_extents.append([o.half_extents for o in spec.objects] + [(1.0, 1.0, 1.0)] * missing)

    def column(values: list) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(dtype)

    packed = column(textures)
    fov = torch.deg2rad(torch.tensor([spec.camera.fov_degrees for spec in specs], dtype=torch.float64))
    return PackedScenes(
        is_room=torch.tensor([spec.surroundings.is_room for spec in specs]),
        lower=column([spec.surroundings.lower for spec in specs]),
        upper=column([spec.surroundings.upper for spec in specs]),
        dome_radius=column([spec.surroundings.dome_radius for spec in specs]),
        shapes=torch.tensor(shapes),
        half_extents=column(half_extents),
        waves=packed[..., :15],
        colours=packed[..., 15:],
        light=column([spec.light for spec in specs]),
        ambient=column([spec.ambient for spec in specs]),
        fov=fov,
    )


@dataclass(frozen=True)
class RayBundle:
    """Rays o + t d from the pixels of every frame, with d_z = 1 in the camera frame: t is the z-depth.

    Attributes:
        x: [B, 1, 1, w] first coordinate of d in the camera frame; `y`: [B, 1, h, 1] the second.
        camera_to_scene: [B, T, 4, 4] float64.
        object_to_scene: [B, T, MAX_OBJECTS, 4, 4] float64, as drawn.
        distortion: of faulty clips.
    """

    x: Tensor
    y: Tensor
    camera_to_scene: Tensor
    object_to_scene: Tensor
    distortion: Distortion | None = None

    def directions(
        self, rotation: Tensor, rows: Tensor | slice = slice(None)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The rays' three coordinates [n, T, h, w] after `rotation` [n, T, 3, 3] of the camera frame.

        `rows` [n] says which batch entry each of the n comes from.
        """
        x, y = self.x[rows], self.y[rows]
        entries = rotation.to(x.dtype)[..., None, None]
        first, second, third = (
            entries[:, :, k, 0] * x + (entries[:, :, k, 1] * y + entries[:, :, k, 2]) for k in range(3)
        )
        return first, second, third


def ray_bundle(
    packed: PackedScenes, motion: SceneMotion, height: int, width: int, supersample: int
) -> RayBundle:
    """Rays through the centres of the `supersample`^2 parts of every pixel."""
    dtype = packed.light.dtype

    def offsets(size: int) -> Tensor:
        return (torch.arange(size * supersample, dtype=torch.float64) + 0.5) / supersample - 0.5 * size

    focal = (0.5 * width / (0.5 * packed.fov).tan())[:, None, None, None]
    distortion, object_to_scene = motion.distortion, motion.object_to_scene
    return RayBundle(
        x=(offsets(width) / focal).to(dtype),
        y=(offsets(height)[:, None] / focal).to(dtype),
        camera_to_scene=motion.camera_to_scene,
        object_to_scene=object_to_scene if distortion is None else distortion.carried @ object_to_scene,
        distortion=distortion,
    )
