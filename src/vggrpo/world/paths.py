"""Camera paths and object motions as functions of clip time, evaluated for whole batches in float64.

Clip time runs from 0 at the first frame to 1 at the last, however many frames there are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.geometry import se3_from_rt, so3_exp
from vggrpo.world.distortion import Distortion
from vggrpo.world.specs import MAX_OBJECTS, CameraPath, SceneSpec, WorldObject


@dataclass(frozen=True)
class SceneMotion:
    """Where everything is at every frame. To plant a fault in a clip, render with an altered copy.

    Attributes:
        camera_to_scene: [B, T, 4, 4] float64.
        object_to_scene: [B, T, MAX_OBJECTS, 4, 4] float64; identity where a scene has fewer objects.
        distortion: what the frames show otherwise than the rest says; see `faults`.
    """

    camera_to_scene: Tensor
    object_to_scene: Tensor
    distortion: Distortion | None = None

    def chunk(self, scenes: slice) -> "SceneMotion":
        """Some of the scenes."""
        distortion = self.distortion and self.distortion.chunk(scenes)
        return SceneMotion(self.camera_to_scene[scenes], self.object_to_scene[scenes], distortion)

    def views(self, frames: slice) -> "SceneMotion":
        """Some of the frames."""
        distortion = self.distortion and self.distortion.views(frames)
        return SceneMotion(self.camera_to_scene[:, frames], self.object_to_scene[:, frames], distortion)


def rotation_about_y(angle: Tensor) -> Tensor:
    """[..., 3, 3] of angles [...] in radians; positive turns +z towards +x."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = (cosine, zero, sine, zero, one, zero, -sine, zero, cosine)
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def rotation_about_x(angle: Tensor) -> Tensor:
    """[..., 3, 3] of angles [...] in radians; positive turns +y towards +z (a camera turns up)."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = (one, zero, zero, zero, cosine, -sine, zero, sine, cosine)
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def clip_times(num_frames: int) -> Tensor:
    """[T] float64 from 0 to 1."""
    return torch.linspace(0, 1, num_frames, dtype=torch.float64)


def shake_noise(seed: int, num_frames: int) -> Tensor:
    """[T, 6] float64 of unit variance, smooth over neighbouring frames, independent three frames apart."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(num_frames + 2, 6, generator=generator, dtype=torch.float64)
    return (white[:-2] + 2 * white[1:-1] + white[2:]) / math.sqrt(6)


def steady_camera_motion(cameras: Sequence[CameraPath], num_frames: int) -> Tensor:
    """camera_to_scene [B, T, 4, 4] float64 of the paths without their shake."""
    start, end, swing, cycles, phase = (
        torch.tensor([getattr(camera, name) for camera in cameras], dtype=torch.float64)[:, None]
        for name in ("start", "end", "swing", "swing_cycles", "swing_phase")
    )
    time = clip_times(num_frames)[:, None]
    channels = start + (end - start) * time + swing * torch.sin(2 * math.pi * cycles * time + phase)
    pivot = channels[..., :3]
    azimuth, radius, height, yaw, pitch = channels[..., 3:].unbind(-1)

    offset = torch.stack((radius * azimuth.sin(), -height, -radius * azimuth.cos()), dim=-1)
    forward = torch.nn.functional.normalize(-offset, dim=-1)
    right = torch.stack((azimuth.cos(), torch.zeros_like(azimuth), azimuth.sin()), dim=-1)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack((right, down, forward), dim=-1) @ rotation_about_y(yaw) @ rotation_about_x(pitch)
    return se3_from_rt(rotation, pivot + offset)


def shake_motion(cameras: Sequence[CameraPath], num_frames: int) -> Tensor:
    """shaken_to_steady [B, T, 4, 4] float64: the shake of each frame in the steady camera's own frame."""
    sizes = torch.tensor(
        [[c.shake_rotation] * 3 + [c.shake_position] * 3 for c in cameras], dtype=torch.float64
    )
    noise = torch.stack([shake_noise(camera.shake_seed, num_frames) for camera in cameras])
    jitter = noise * sizes[:, None]
    return se3_from_rt(so3_exp(jitter[..., :3]), jitter[..., 3:])


def object_motion(scenes: Sequence[Sequence[WorldObject]], num_frames: int) -> Tensor:
    """object_to_scene [B, T, MAX_OBJECTS, 4, 4] float64 of the objects of B scenes."""
    absent = [0.0] * 11
    rows = []
    for things in scenes:
        rows += [
            [*o.position, *o.travel, o.circle_radius, o.circle_start, o.circle_sweep, o.yaw, o.spin]
            for o in things
        ]
        rows += [absent] * (MAX_OBJECTS - len(things))
    table = torch.tensor(rows, dtype=torch.float64).view(len(scenes), 1, MAX_OBJECTS, 11)
    time = clip_times(num_frames)[:, None]
    radius, first_angle, sweep, yaw, spin = table[..., 6:].unbind(-1)
    angle = first_angle + sweep * time
    circle_x = radius * (angle.cos() - first_angle.cos())
    circle_z = radius * (angle.sin() - first_angle.sin())
    circle = torch.stack((circle_x, torch.zeros_like(circle_x), circle_z), dim=-1)
    position = table[..., :3] + table[..., 3:6] * time[..., None] + circle
    return se3_from_rt(rotation_about_y(yaw + spin * time), position)


def scene_motion(specs: Sequence[SceneSpec], num_frames: int) -> SceneMotion:
    """Camera and object poses of every frame of every clip."""
    cameras = [spec.camera for spec in specs]
    steady = steady_camera_motion(cameras, num_frames)
    return SceneMotion(
        camera_to_scene=steady @ shake_motion(cameras, num_frames),
        object_to_scene=object_motion([spec.objects for spec in specs], num_frames),
    )
