"""Planted faults: clips of a world that does not hold together, as weak video models make them.

Every fault starts from the clean clip's first frame (there it is the same picture) and from its camera.
Frames, depth and points show it; what a faulty clip pretends, its cameras, scene flow and static mask, is the
clean clip's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vggrpo.geometry import se3_from_rt, so3_exp
from vggrpo.io import derive_seed, make_generator
from vggrpo.world.distortion import Distortion
from vggrpo.world.paths import SceneMotion, clip_times, shake_noise
from vggrpo.world.specs import MAX_OBJECTS, SceneSpec
from vggrpo.world.waves import wave, wave_slope

FaultKind = Literal["warped", "wobbling", "sliding"]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)

NUM_WAVES = 4
WAVE_LENGTH = (3.5, 6.5)
"""Of the bends, scene units: about the size of a room."""
BEND = {"warped": 0.4, "wobbling": 0.18, "sliding": 0.0}
"""Amplitude of each wave at severity 1, scene units: at a warped clip's end; over time, as a deviation."""
UPWARDS = 0.35
"""Share of the amplitude in height: a floor seen at a low angle would otherwise hide behind its own hills."""
SLIDE = 1.5
"""What a texture of the surroundings moves over a sliding clip at severity 1, scene units."""
OBJECT_SLIDE = 1.0
"""What an object's texture moves, over the object's greatest half extent."""
ACROSS = (1, 0, 0, 2, 2, 1)
"""The axis across each surface of the surroundings, in their order."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault, and how strong it is.

    `warped`: surroundings bend slowly over the clip, and objects drift and tilt with them. `wobbling`: the
    same from frame to frame, irregularly. `sliding`: textures move over surfaces that stand still.

    Raises:
        ValueError: if the kind is unknown or the severity not positive.
    """

    kind: FaultKind
    severity: float = 1.0
    """1 is what a person notices in the video; displacements are proportional to it."""

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise ValueError(f"kind is {self.kind!r}; expected one of {', '.join(FAULT_KINDS)}")
        if not self.severity > 0:
            raise ValueError(f"severity is {self.severity}; expected a positive number")


def plant_fault(motion: SceneMotion, specs: Sequence[SceneSpec], fault: Fault) -> SceneMotion:
    """The motion of whole clips with the fault in them, the same for the same scenes and number of frames."""
    parts = [_draw(spec, fault, motion.camera_to_scene.shape[1]) for spec in specs]
    vectors, phases, amplitudes, slides, object_slides = (
        torch.stack(values) for values in zip(*parts, strict=True)
    )
    distortion = Distortion(
        wave_vectors=vectors,
        phases=phases,
        amplitudes=amplitudes,
        carried=carried_objects(motion.object_to_scene, vectors, phases, amplitudes),
        slides=slides,
        object_slides=object_slides,
    )
    return replace(motion, distortion=distortion)


def carried_objects(object_to_scene: Tensor, vectors: Tensor, phases: Tensor, amplitudes: Tensor) -> Tensor:
    """[B, T, O, 4, 4]: rigid motions that take objects along with a bend, as its floor does where they stand.

    About the point c below an object, x -> c + R (x - c) + u(c), R = exp(curl u(c) / 2).

    Args:
        object_to_scene: [B, T, O, 4, 4] float64 without the bend.
        vectors, phases, amplitudes: of the bend, as in `Distortion`.
    """
    foot = object_to_scene[..., :3, 3] * object_to_scene.new_tensor([1.0, 0.0, 1.0])
    phase = (foot[..., None, :] * vectors[:, None, None]).sum(-1) + phases[:, None, None]
    amplitudes = amplitudes[:, :, None]
    shift = (wave(phase)[..., None] * amplitudes).sum(-2)
    spread_vectors = vectors[:, None, None].expand(*phase.shape, 3)
    curls = torch.linalg.cross(spread_vectors, amplitudes.expand(*phase.shape, 3))
    rotation = so3_exp(0.5 * (wave_slope(phase)[..., None] * curls).sum(-2))
    return se3_from_rt(rotation, foot + shift - (rotation @ foot[..., None]).squeeze(-1))


def _draw(spec: SceneSpec, fault: Fault, num_frames: int) -> tuple[Tensor, ...]:
    """Wave vectors [K, 3], phases [K], amplitudes [T, K, 3], slides [T, 6, 3] and [T, MAX_OBJECTS, 3]."""
    stream = ("world fault", fault.kind, spec.split, spec.index)
    generator = make_generator(*stream)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def directions(count: int) -> Tensor:
        return torch.randn(count, 3, generator=generator, dtype=torch.float64)

    shortest, longest = WAVE_LENGTH
    vectors = normalize(directions(NUM_WAVES), dim=-1)
    vectors = vectors / (shortest + (longest - shortest) * uniform(NUM_WAVES, 1))
    phases, bends = uniform(NUM_WAVES), normalize(directions(NUM_WAVES), dim=-1)
    bends[:, 1] *= UPWARDS
    headings, object_headings = directions(len(ACROSS)), directions(MAX_OBJECTS)
    headings[range(len(ACROSS)), ACROSS] = 0

    time = clip_times(num_frames)[:, None, None]
    course = time
    if fault.kind == "wobbling":
        course = shake_noise(derive_seed(*stream, "course"), num_frames)[:, :NUM_WAVES, None]
        course[0] = 0
    slides = time * (fault.severity if fault.kind == "sliding" else 0.0)
    sizes = [max(thing.half_extents) for thing in spec.objects] + [0.0] * (MAX_OBJECTS - len(spec.objects))
    reach = OBJECT_SLIDE * torch.tensor(sizes, dtype=torch.float64)[:, None]
    return (
        vectors,
        phases,
        fault.severity * BEND[fault.kind] * course * bends,
        slides * SLIDE * normalize(headings, dim=-1),
        slides * reach * normalize(object_headings, dim=-1),
    )
