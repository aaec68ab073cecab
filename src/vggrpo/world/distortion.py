"""What is wrong with a faulty clip's world: surfaces that bend over time, textures that slide over them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from vggrpo.world.waves import wave


@dataclass(frozen=True)
class Distortion:
    """The faults of B clips. Rest of the world and camera are as they would be without.

    The surroundings' point x is displaced to x + u(x, t), u = sum_k amplitudes[t, k] wave(w_k . x + phase_k).

    Attributes:
        wave_vectors: [B, K, 3] float64, cycles per scene unit.
        phases: [B, K] float64.
        amplitudes: [B, T, K, 3] float64, scene units.
        carried: [B, T, MAX_OBJECTS, 4, 4] float64, rigid, in the scene frame: where the bend takes objects.
        slides: [B, T, 6, 3] float64, along each surface of the surroundings: by how much its texture has
            moved, scene units.
        object_slides: [B, T, MAX_OBJECTS, 3] float64, the same of objects, in their own frames; only the part
            along the surface counts.
    """

    wave_vectors: Tensor
    phases: Tensor
    amplitudes: Tensor
    carried: Tensor
    slides: Tensor
    object_slides: Tensor

    def chunk(self, scenes: slice | Tensor) -> "Distortion":
        """Some of the scenes."""
        return Distortion(**{field.name: getattr(self, field.name)[scenes] for field in fields(self)})

    def views(self, frames: slice) -> "Distortion":
        """Some of the frames."""
        return Distortion(
            self.wave_vectors,
            self.phases,
            self.amplitudes[:, frames],
            self.carried[:, frames],
            self.slides[:, frames],
            self.object_slides[:, frames],
        )

    def displacement(self, points: Sequence[Tensor]) -> list[Tensor]:
        """u at points, three [B, T, h, w] of the scene frame."""
        dtype = points[0].dtype
        vectors, phases, amplitudes = (
            values.to(dtype)[..., None, None] for values in (self.wave_vectors, self.phases, self.amplitudes)
        )
        result = [torch.zeros_like(points[0]) for _ in range(3)]
        for k in range(phases.shape[1]):
            phase = phases[:, k, None]
            for axis in range(3):
                phase = phase + vectors[:, k, None, axis] * points[axis]
            height = wave(phase)
            for axis in range(3):
                result[axis] += amplitudes[:, :, k, axis] * height
        return result

    def slide(self, surface: Tensor, points: Sequence[Tensor]) -> list[Tensor]:
        """Where the textures of `surface` [B, T, h, w] long are read at points, three [B, T, h, w]."""
        table = self.slides.to(points[0].dtype)
        index = surface.flatten(2)
        return [points[axis] - table[..., axis].gather(2, index).view(surface.shape) for axis in range(3)]

    def slide_on_objects(
        self, pose: Tensor, points: Sequence[Tensor], normals: Sequence[Tensor]
    ) -> list[Tensor]:
        """Where objects' textures are read at points, three [N], of poses [N], with normals, three [N]."""
        table = self.object_slides.to(points[0].dtype).flatten(0, 2)
        slide = [table[:, axis].index_select(0, pose) for axis in range(3)]
        outward = slide[0] * normals[0] + slide[1] * normals[1] + slide[2] * normals[2]
        return [p - (s - outward * n) for p, s, n in zip(points, slide, normals, strict=True)]
