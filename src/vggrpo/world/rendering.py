"""Clips of the procedural world: frames with exact geometry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry
from vggrpo.world.faults import Fault, plant_fault
from vggrpo.world.ground_truth import render_geometry
from vggrpo.world.packing import PackedScenes, pack_scenes, ray_bundle
from vggrpo.world.paths import SceneMotion, scene_motion
from vggrpo.world.shading import shade
from vggrpo.world.specs import SceneSpec
from vggrpo.world.tracing import trace

HEIGHT, WIDTH, NUM_FRAMES, KEY_STRIDE = 48, 64, 17, 4
"""The micro family's raster, clip length, and frames per geometry view."""
MAX_RAYS = 250_000
"""Rays in flight: what fits the processor's caches is fastest."""


@dataclass(frozen=True)
class WorldClips:
    """Rendered clips with their ground truth.

    Attributes:
        frames: [B, T, H, W, 3] in [0, 1].
        geometry: of the same T frames, on the same raster, in the camera frame of frame 0; no confidence.
        captions: B captions.
        is_dynamic: [B] bool, whether an object moves.
        is_shaky: [B] bool, whether the camera shakes.
        object_mask: [B, T, H, W] long; 0 is the surroundings, k + 1 the scene's object k.
    """

    frames: Tensor
    geometry: SceneGeometry
    captions: list[str]
    is_dynamic: Tensor
    is_shaky: Tensor
    object_mask: Tensor


def render_clips(
    specs: Sequence[SceneSpec],
    views: Literal["all", "keys"] = "all",
    height: int = HEIGHT,
    width: int = WIDTH,
    num_frames: int = NUM_FRAMES,
    supersample: int = 2,
    dtype: torch.dtype = torch.float32,
    fault: Fault | None = None,
) -> WorldClips:
    """Renders every clip of `specs`; a clip is the same bit for bit whatever batch it is rendered in.

    Args:
        specs: B scenes.
        views: "all" frames, or the "keys" 0, 4, 8, ... that a latent geometry model sees.
        height, width: raster in pixels.
        num_frames: frames of the whole clip, of which "keys" are one in four; the motion spans the clip.
        supersample: a colour is the mean of this many samples squared; geometry is at pixel centres.
        dtype: of every output and of the ray casting.
        fault: what is wrong in the clips. Frames, depth and points are then those of the faulty world;
            cameras, scene flow and static mask are what it pretends: those of the clean one.

    Raises:
        ValueError: if `specs` is empty, `views` unknown, or a size is not positive.
    """
    if len(specs) == 0:
        raise ValueError("specs is empty; expected at least one scene to render")
    sizes = {"height": height, "width": width, "num_frames": num_frames, "supersample": supersample}
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; expected a positive integer")
    if views not in ("all", "keys"):
        raise ValueError(f"views is {views!r}; expected 'all' or 'keys'")
    stride = KEY_STRIDE if views == "keys" else 1
    motion = scene_motion(specs, num_frames)
    if fault is not None:
        motion = plant_fault(motion, specs, fault)
    motion = motion.views(slice(None, None, stride))
    packed = pack_scenes(specs, dtype)
    frames, object_mask, geometry = render_packed(packed, motion, height, width, supersample)
    return WorldClips(
        frames=frames,
        geometry=geometry,
        captions=[spec.caption for spec in specs],
        is_dynamic=torch.tensor([spec.is_dynamic for spec in specs]),
        is_shaky=torch.tensor([spec.is_shaky for spec in specs]),
        object_mask=object_mask,
    )


def render_packed(
    packed: PackedScenes, motion: SceneMotion, height: int, width: int, supersample: int
) -> tuple[Tensor, Tensor, SceneGeometry]:
    """Frames [B, T, H, W, 3], object mask [B, T, H, W] and geometry of packed scenes under a given motion."""
    num_scenes, num_views = motion.camera_to_scene.shape[:2]
    rays_per_view = height * width * supersample**2
    views_at_once = max(1, min(num_views, MAX_RAYS // rays_per_view))
    scenes_at_once = max(1, MAX_RAYS // (rays_per_view * num_views))
    frames = torch.empty(num_scenes, num_views, height, width, 3, dtype=packed.light.dtype)
    geometries = []
    for first in range(0, num_scenes, scenes_at_once):
        part = slice(first, first + scenes_at_once)
        scenes, poses = packed.chunk(part), motion.chunk(part)
        for view in range(0, num_views, views_at_once):
            views = slice(view, view + views_at_once)
            frames[part, views] = render_frames(scenes, poses.views(views), height, width, supersample)
        geometries.append(render_geometry(scenes, poses, height, width))
    masks, parts = zip(*geometries, strict=True)
    return frames, torch.cat(masks), SceneGeometry.concatenate(list(parts))


def render_frames(
    packed: PackedScenes, motion: SceneMotion, height: int, width: int, supersample: int
) -> Tensor:
    """Colours [B, T, H, W, 3], each the mean of `supersample`^2 samples."""
    rays = ray_bundle(packed, motion, height, width, supersample)
    colours = shade(packed, rays, trace(packed, rays))
    corners = [
        colours[..., row::supersample, column::supersample]
        for row in range(supersample)
        for column in range(supersample)
    ]
    mean = sum(corners[1:], corners[0]) / supersample**2
    return mean.clamp(0, 1).permute(1, 2, 3, 4, 0)
