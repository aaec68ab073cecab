"""Point rendering: all scenes and views at once against a Python loop over them, in the same run.

    python benchmarks/point_rendering.py [--device cuda] [--output benchmarks/results/NAME.json]

Both draw the points of all views into every view with a z-buffer and pick the winners; they must agree.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vggrpo.geometry import intrinsics_from_fov, project, render_depth, se3_from_rt, so3_exp, unproject

SIZES = {"micro": (16, 5, 48, 64), "wan at 126 x 224": (1, 21, 126, 224)}
MAX_DIFFERING = 1e-4
"""Share of pixels that may differ: points that fall on the border of two pixels, by rounding."""
Cloud = dict[str, Tensor]


def random_clouds(batch: int, views: int, height: int, width: int, device: str) -> Cloud:
    """Points of gently moving cameras over smooth depth."""
    generator = torch.Generator().manual_seed(0)
    turns = 0.1 * torch.randn(batch, views, 3, generator=generator)
    shifts = 0.3 * torch.randn(batch, views, 3, generator=generator)
    pose = se3_from_rt(so3_exp(turns), shifts)
    K = intrinsics_from_fov(torch.tensor(1.0), height, width).expand(batch, views, 3, 3)
    ramp = torch.linspace(2, 6, width).expand(batch, views, height, width)
    points = unproject(ramp, K, pose).flatten(1, 3)
    return {"points": points.to(device), "pose": pose.to(device), "K": K.to(device)}


def render_at_once(cloud: Cloud, height: int, width: int) -> Tensor:
    """Depth [B, V, H, W] by the library."""
    return render_depth(cloud["points"], None, cloud["pose"], cloud["K"], height, width).depth


def render_by_loop(cloud: Cloud, height: int, width: int) -> Tensor:
    """The same, one view of one scene at a time: first the least depth, then the points that have it."""
    batch, views = cloud["pose"].shape[:2]
    depth = torch.zeros(batch, views, height * width, device=cloud["points"].device)
    for b in range(batch):
        for i in range(views):
            uv, z = project(cloud["points"][b], cloud["K"][b, i], cloud["pose"][b, i])
            column, row = (uv + 0.5).floor().unbind(-1)
            drawn = (z > 1e-6) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            number = drawn.nonzero().squeeze(1)
            pixel, z = (row * width + column)[number].long(), z[number]
            nearest = torch.full_like(depth[b, i], torch.inf).scatter_reduce_(0, pixel, z, "amin")
            wins = z == nearest[pixel]
            winner = torch.full_like(nearest, -1, dtype=torch.int64)
            winner[pixel[wins]] = number[wins]
            depth[b, i] = torch.where(winner >= 0, nearest, 0.0)
    return depth.reshape(batch, views, height, width)


def seconds(run: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Wall times after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times[1:]


def main() -> None:
    """Runs all sizes and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    results: dict[str, object] = {
        "machine": torch.cuda.get_device_name() if args.device == "cuda" else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    for name, (batch, views, height, width) in SIZES.items():
        cloud = random_clouds(batch, views, height, width, args.device)
        difference = render_at_once(cloud, height, width) - render_by_loop(cloud, height, width)
        differing = float((difference.abs() > 1e-4).float().mean())
        if differing > MAX_DIFFERING:
            raise SystemExit(f"{name}: the two renderings differ in a share of {differing:.2g} of the pixels")
        figures = {}
        for method in (render_at_once, render_by_loop):
            times = seconds(partial(method, cloud, height, width), args.repeats, args.device)
            figures[method.__name__] = {
                "median_s": round(statistics.median(times), 4),
                "min_s": round(min(times), 4),
                "max_s": round(max(times), 4),
            }
        ratio = figures["render_by_loop"]["median_s"] / figures["render_at_once"]["median_s"]
        results[name] = {"size_BVHW": [batch, views, height, width], **figures, "ratio": round(ratio, 2)}
    text = json.dumps(results, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
