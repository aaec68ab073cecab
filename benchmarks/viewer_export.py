"""What `vggrpo view --export` costs: seconds and megabytes for a scene of 21 views of 120 x 168 points.

    python benchmarks/viewer_export.py [--threads 1] [--output benchmarks/results/NAME.json]

The scene is exact, of the procedural world, and in a second case with noise of 1 % on every depth, which
compresses worse: predicted geometry lies between the two.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from common.results import write_result

from vggrpo.geometry import unproject
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.viewer import Scene4D, build_scene, scene_page
from vggrpo.viewer.html_payload import scene_payload
from vggrpo.viewer.prepared import prepare_scene
from vggrpo.world import render_clips, sample_scene

VIEWS, HEIGHT, WIDTH = 21, 120, 168
CLIP = 10
"""A room in which something moves."""
REPETITIONS = 5
NOISE = 0.01

Result = TypeVar("Result")


def example_scene(noise: float) -> Scene4D:
    """The scene with its rewards, as `vggrpo reconstruct` leaves one."""
    clips = render_clips([sample_scene("test", CLIP)], height=HEIGHT, width=WIDTH, num_frames=VIEWS)
    geometry = clips.geometry
    factor = torch.randn(geometry.depth_z.shape, generator=torch.Generator().manual_seed(0))
    depth = geometry.depth_z * (1 + noise * factor)
    points = unproject(depth, geometry.intrinsics, geometry.camera_to_world)
    geometry = replace(
        geometry, depth_z=depth, world_points=points, confidence=1 / (1 + factor.abs()), static_mask=None
    )
    return build_scene(
        geometry,
        clips.frames[0],
        range(VIEWS),
        fps=8.0,
        rewards={"camera_motion": CameraMotionReward(), "reprojection": ReprojectionReward.robust()},
        flow_threshold=0.03,
        relative=True,
        label="benchmark",
        prompt=clips.captions[0],
    )


def timed(task: Callable[[], Result], seconds: list[float]) -> Result:
    """The task's result; its time is appended to `seconds`."""
    start = time.perf_counter()
    result = task()
    seconds.append(time.perf_counter() - start)
    return result


def measure(scene: Scene4D) -> dict[str, object]:
    """Seconds (median and extremes) of the parts and of the whole, and the size of the page."""
    times: dict[str, list[float]] = {"derive what is drawn": [], "pack": [], "whole page": []}
    for _ in range(REPETITIONS):
        prepared = timed(lambda: prepare_scene(scene), times["derive what is drawn"])
        timed(lambda prepared=prepared: scene_payload(prepared), times["pack"])
        page = timed(lambda: scene_page([scene]), times["whole page"])
    summary = {
        name: {
            "median": round(statistics.median(values), 2),
            "least": round(min(values), 2),
            "greatest": round(max(values), 2),
        }
        for name, values in times.items()
    }
    return {"seconds": summary, "megabytes": round(len(page.encode()) / 1e6, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/viewer_export.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = {
        "what": f"export of a scene of {VIEWS} views of {HEIGHT}x{WIDTH} points as a page",
        "exact": measure(example_scene(0.0)),
        f"depth noise {NOISE:.0%}": measure(example_scene(NOISE)),
        "repetitions": REPETITIONS,
        "threads": arguments.threads,
    }
    write_result(arguments.output, result, torch=torch.__version__)


if __name__ == "__main__":
    main()
