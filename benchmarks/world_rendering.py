"""Rendering the procedural world: whole batches at once against a frame and a surface at a time, in one run.

    python benchmarks/world_rendering.py [--threads 1] [--output benchmarks/results/NAME.json]

The straightforward renderer reads the scene specifications by itself, loops over clips, frames and surfaces,
and shades every surface at every ray. Both make colours and exact geometry, and must agree.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common.results import write_result
from torch import Tensor

from vggrpo.geometry import transform_points
from vggrpo.world import HEIGHT, WIDTH, SceneSpec, Texture, WorldObject, captions, render_clips, sample_scene
from vggrpo.world.paths import scene_motion
from vggrpo.world.shading import FADE_RATE, FADE_START, SHADOW_DEPTH, SHADOW_REACH

CLIPS = 16
SLOW_CLIPS = 2
"""Clips that the straightforward renderer draws per repetition."""
REPETITIONS = 7
MAX_DIFFERING = 1e-3
"""Share of pixels that may differ visibly: samples on the border of two surfaces, by rounding."""


def texture_colour(texture: Texture, points: Tensor, fade: Tensor | float = 1.0) -> Tensor:
    """[N, 3] at points [N, 3] of the surface's own frame."""
    phase = points @ torch.tensor(texture.wave_vectors).T + torch.tensor(texture.phases)
    s = 2 * (phase - phase.floor()) - 1
    y = 4 * s * (s.abs() - 1)
    waves = torch.stack((y.prod(-1), y[:, 0], y.sum(-1)), dim=-1)
    mix = 0.5 + ((0.5 + waves @ torch.tensor(texture.weights)).clamp(0, 1) - 0.5) * fade
    first, second = torch.tensor(texture.colour), torch.tensor(texture.second_colour)
    return first + mix[:, None] * (second - first)


def brightness(spec: SceneSpec, normals: Tensor) -> Tensor:
    """[N, 1] of unit normals [N, 3] in the scene frame."""
    cosine = normals @ torch.tensor(spec.light)
    return (spec.ambient + (1 - spec.ambient) * (0.3 + 0.7 * cosine).clamp(min=0))[:, None]


def shadow(spec: SceneSpec, poses: Tensor, points: Tensor) -> Tensor:
    """[N, 1] light left at floor points [N, 3]."""
    light = torch.ones(len(points))
    for thing, pose in zip(spec.objects, poses, strict=False):
        reach = SHADOW_REACH * max(thing.half_extents[0], thing.half_extents[2])
        square = ((points[:, [0, 2]] - pose[[0, 2], 3]) / reach).square().sum(-1)
        light = light * (1 - SHADOW_DEPTH * (1 - square).clamp(min=0))
    return light[:, None]


def hit_object(thing: WorldObject, origin: Tensor, direction: Tensor) -> Tensor:
    """Depth [N] of rays [N, 3] in the object's frame, infinite where they miss."""
    half = torch.tensor(thing.half_extents)
    inverse = 1 / direction
    first, second = (-half - origin) * inverse, (half - origin) * inverse
    enter, leave = torch.minimum(first, second), torch.maximum(first, second)
    if thing.shape == "box":
        near, far = enter.amax(-1), leave.amin(-1)
    else:
        axes = [0, 1, 2] if thing.shape == "sphere" else [0, 2]
        o, d = origin[axes], direction[:, axes]
        a, b, c = (d * d).sum(-1), (d * o).sum(-1), (o * o).sum() - half[0] ** 2
        root = (b * b - a * c).clamp(min=0).sqrt()
        near, far = (-b - root) / a, (-b + root) / a
        if thing.shape == "cylinder":
            near, far = torch.maximum(near, enter[:, 1]), torch.minimum(far, leave[:, 1])
    return torch.where((near < far) & (near > 0), near, torch.inf)


def object_normals(thing: WorldObject, points: Tensor) -> Tensor:
    """Unit normals [N, 3] at surface points [N, 3] of the object's frame."""
    scaled = points / torch.tensor(thing.half_extents)
    if thing.shape == "sphere":
        return scaled
    if thing.shape == "box":
        size = scaled.abs()
        return torch.where(size >= size.amax(-1, keepdim=True), scaled.sign(), 0)
    cap = scaled[:, 1].abs() >= scaled[:, [0, 2]].norm(dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0])
    return torch.where(cap[:, None], up * scaled.sign(), (1 - up) * scaled)


def render_view(
    spec: SceneSpec, camera: Tensor, poses: Tensor, height: int, width: int, samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour [H, W, 3] of one frame, and depth [h, w] and object mask [h, w] of all its samples."""
    focal = 0.5 * width / math.tan(0.5 * math.radians(spec.camera.fov_degrees))
    v = (torch.arange(height * samples) + 0.5) / samples - 0.5 * height
    u = (torch.arange(width * samples) + 0.5) / samples - 0.5 * width
    y, x = torch.meshgrid(v / focal, u / focal, indexing="ij")
    rays = torch.stack((x, y, torch.ones_like(x)), dim=-1).flatten(0, 1)
    origin, direction = camera[:3, 3], rays @ camera[:3, :3].T
    depth = torch.full((len(rays),), torch.inf)
    colour, mask = torch.zeros(len(rays), 3), torch.zeros(len(rays), dtype=torch.long)

    place = spec.surroundings
    planes = [(1, 0.0, place.floor)]
    if place.is_room:
        planes += [(axis, bound[axis], place.wall) for axis in (0, 2) for bound in (place.lower, place.upper)]
        planes += [(1, place.lower[1], place.ceiling)]
    else:
        a, b = (direction * direction).sum(-1), direction @ origin
        depth = ((b * b - a * (origin @ origin - place.dome_radius**2)).sqrt() - b) / a
        fade = (FADE_START - FADE_RATE * depth).clamp(0, 1)
        colour = texture_colour(place.ceiling, origin + depth[:, None] * direction, fade)
    for axis, bound, texture in planes:
        t = (bound - origin[axis]) / direction[:, axis]
        points = origin + t[:, None] * direction
        fade = (FADE_START - FADE_RATE * t).clamp(0, 1)
        normal = torch.zeros(1, 3)
        normal[0, axis] = -1.0 if bound > float(origin[axis]) else 1.0
        own = texture_colour(texture, points, fade) * brightness(spec, normal)
        own = own * shadow(spec, poses, points) if texture is place.floor else own
        closer = (t > 0) & (t < depth)
        depth, colour = torch.where(closer, t, depth), torch.where(closer[:, None], own, colour)

    for k, thing in enumerate(spec.objects):
        rotation, centre = poses[k, :3, :3], poses[k, :3, 3]
        local_origin, local_direction = (origin - centre) @ rotation, direction @ rotation
        t = hit_object(thing, local_origin, local_direction)
        points = local_origin + t[:, None] * local_direction
        normals = object_normals(thing, points) @ rotation.T
        own = texture_colour(thing.texture, points) * brightness(spec, normals)
        closer = t < depth
        depth, colour = torch.where(closer, t, depth), torch.where(closer[:, None], own, colour)
        mask = torch.where(closer, k + 1, mask)
    raster = (height * samples, width * samples)
    pooled = colour.view(height, samples, width, samples, 3).mean((1, 3))
    return pooled.clamp(0, 1), depth.view(raster), mask.view(raster)


def render_straightforwardly(specs: list[SceneSpec], stride: int, num_frames: int = 17) -> dict[str, Tensor]:
    """Frames, depth, points, object mask and scene flow of clips, one frame at a time."""
    motion = scene_motion(specs, num_frames)
    clips: dict[str, list[Tensor]] = {name: [] for name in ("frames", "depth", "mask", "points", "flow")}
    for spec, cameras, poses in zip(
        specs, motion.camera_to_scene.float(), motion.object_to_scene.float(), strict=True
    ):
        views: dict[str, list[Tensor]] = {name: [] for name in clips}
        for i in range(0, num_frames, stride):
            frame, _, _ = render_view(spec, cameras[i], poses[i], HEIGHT, WIDTH, samples=2)
            _, depth, mask = render_view(spec, cameras[i], poses[i], HEIGHT, WIDTH, samples=1)
            v, u = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
            focal = 0.5 * WIDTH / math.tan(0.5 * math.radians(spec.camera.fov_degrees))
            x, y = (u - 0.5 * (WIDTH - 1)) / focal, (v - 0.5 * (HEIGHT - 1)) / focal
            points = depth[..., None] * torch.stack((x, y, torch.ones_like(x)), dim=-1)
            world = torch.linalg.inv(cameras[0]) @ cameras[i]
            points = transform_points(world, points)
            start = views["points"][0] if i else points
            flow = torch.zeros_like(start)
            for k in range(len(spec.objects)):
                shown = (views["mask"][0] if i else mask) == k + 1
                scene_points = transform_points(cameras[0], start)
                step = poses[i, k] @ torch.linalg.inv(poses[0, k])
                moved = transform_points(torch.linalg.inv(cameras[0]), transform_points(step, scene_points))
                flow = torch.where(shown[..., None], moved - start, flow)
            for name, value in zip(views, (frame, depth, mask, points, flow), strict=True):
                views[name].append(value)
        for name, values in views.items():
            clips[name].append(torch.stack(values))
    return {name: torch.stack(values) for name, values in clips.items()}


def check_agreement(specs: list[SceneSpec]) -> dict[str, float]:
    """Shares of pixels on which the two renderers differ visibly; raises if they are too many."""
    clips, slow = render_clips(specs), render_straightforwardly(specs, stride=1)
    flow = clips.geometry.scene_flow_from_ref
    assert flow is not None
    pairs = {
        "frames": (clips.frames, slow["frames"], 2e-3),
        "depth": (clips.geometry.depth_z, slow["depth"], 1e-3),
        "points": (clips.geometry.world_points, slow["points"], 1e-3),
        "flow": (flow, slow["flow"], 1e-3),
        "mask": (clips.object_mask, slow["mask"], 0.5),
    }
    shares = {}
    for name, (fast, reference, tolerance) in pairs.items():
        shares[name] = float(((fast - reference).abs() > tolerance).double().mean())
        if shares[name] > MAX_DIFFERING:
            raise RuntimeError(
                f"the renderers differ in {name} on a share of {shares[name]:.2g} of all pixels"
            )
    return shares


def clips_per_second(render: Callable[[], object], clips: int) -> float:
    """Of one call."""
    start = time.perf_counter()
    render()
    return clips / (time.perf_counter() - start)


def summary(rates: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(rates, n=4, method="inclusive")
    return {"median": round(middle, 2), "lower_quartile": round(low, 2), "upper_quartile": round(high, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/world_rendering.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    specs = [sample_scene("train", index) for index in range(CLIPS)]
    agreement = check_agreement(specs[:4])
    tasks: dict[str, tuple[Callable[[], object], int]] = {}
    for name, views, stride in (("all 17 frames", "all", 1), ("5 key frames", "keys", 4)):
        tasks[f"at once, {name}"] = (partial(render_clips, specs, views=views), CLIPS)
        slow = partial(render_straightforwardly, specs[:SLOW_CLIPS], stride=stride)
        tasks[f"one frame at a time, {name}"] = (slow, SLOW_CLIPS)
    tasks["sampling scenes"] = (partial(captions, "train", CLIPS), CLIPS)
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for repetition in range(REPETITIONS + 1):
        for name, (task, clips) in tasks.items():
            rate = clips_per_second(task, clips)
            if repetition:
                rates[name].append(rate)
    ratios = {
        name: [
            fast / slow
            for fast, slow in zip(
                rates[f"at once, {name}"], rates[f"one frame at a time, {name}"], strict=True
            )
        ]
        for name in ("all 17 frames", "5 key frames")
    }
    result = {
        "what": f"clips of {HEIGHT}x{WIDTH}x17, colours from 2x2 samples a pixel, with exact geometry",
        "clips_per_second": {name: summary(values) for name, values in rates.items()},
        "ratio": {name: summary(values) for name, values in ratios.items()},
        "share_of_differing_pixels": agreement,
        "repetitions": REPETITIONS,
        "threads": arguments.threads,
    }
    write_result(arguments.output, result, torch=torch.__version__)


if __name__ == "__main__":
    main()
