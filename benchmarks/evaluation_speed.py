"""Speed of `vggrpo evaluate`'s classical metrics: clips/s by number of workers, where time goes, and memory.

The clips are pictures with structure of every size that pan, as H.264. Runs with different numbers of workers
take turns, after one that is thrown away. The share of each part is measured in one process. The memory is
that of the main process after the first tenth and after all of many small clips.

    python benchmarks/evaluation_speed.py [--output FILE]
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from common.results import write_result

from vggrpo.evaluation.videos import (
    Clip,
    ClipResults,
    DynamicsMetric,
    EngineSettings,
    EpipolarMetric,
    FeatureConsistencyMetric,
    MetricSet,
    find_clips,
    measure_clips,
)
from vggrpo.evaluation.videos.pool import run_tasks
from vggrpo.evaluation.videos.worker import Task, Workload, measure_clip
from vggrpo.io import write_video

METRICS = MetricSet((EpipolarMetric(), DynamicsMetric(), FeatureConsistencyMetric()))
WORKLOAD = Workload(METRICS.frame, {}, {metric.name: metric.fingerprint for metric in METRICS.frame})
FPS = 16.0


def make_clip(path: Path, seed: int, frames: int, height: int, width: int) -> None:
    """A picture of noise in four sizes that pans by some pixels a frame."""
    rng = np.random.default_rng(seed)
    canvas = (height + 4 * frames, width + 4 * frames)
    picture = np.zeros((*canvas, 3), np.float32)
    for cell, weight in ((6, 0.1), (16, 0.3), (48, 0.3), (120, 0.3)):
        layer = rng.random((-(-canvas[0] // cell), -(-canvas[1] // cell), 3)).astype(np.float32)
        picture += weight * cv2.resize(layer, canvas[::-1], interpolation=cv2.INTER_CUBIC)
    picture = (255 * np.clip(picture, 0, 1)).astype(np.uint8)
    dx, dy = rng.uniform(0.5, 3.5, 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    windows = (np.array([[1, 0, dx * t], [0, 1, dy * t]], np.float32) for t in range(frames))
    clip = np.stack([cv2.warpAffine(picture, window, (width, height), flags=flags) for window in windows])
    write_video(path, clip, FPS)


def clips_per_second(clips: list[Clip], workers: int) -> float:
    """Of one run, starting the workers included."""
    start = time.perf_counter()
    outcomes = list(run_tasks((Task(clip) for clip in clips), WORKLOAD, workers))
    if any(outcome.reason for outcome in outcomes):
        raise RuntimeError("a clip failed")
    return len(clips) / (time.perf_counter() - start)


def shares(clips: list[Clip]) -> dict[str, float]:
    """Each part's share of the time of measuring clips, one after the other."""
    seconds: Counter[str] = Counter()
    for clip in clips:
        seconds.update(measure_clip(Task(clip), WORKLOAD).seconds)
    return {part: round(value / seconds.total(), 3) for part, value in seconds.items()}


def memory_growth(folder: Path, count: int, workers: int) -> dict[str, float]:
    """Peak memory of this process in MB after a tenth of `count` small clips and after all, and the time of
    the latter."""
    source, many = folder / "small.mp4", folder / "many"
    make_clip(source, 0, 6, 64, 96)
    many.mkdir()
    for number in range(count):
        os.link(source, many / f"p{number // 4}_seed{number % 4}.mp4")
    clips, peaks = find_clips(many), {}
    for part in (clips[: count // 10], clips):
        start = time.perf_counter()
        measure_clips(part, METRICS, ClipResults(folder), EngineSettings(workers))
        peaks[f"after {len(part)} clips"] = round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1
        )
        seconds = time.perf_counter() - start
    return peaks | {"seconds": round(seconds, 1)}


def summary(values: list[float], digits: int = 3) -> dict[str, float]:
    """Median, least and greatest."""
    middle = statistics.median(values)
    return {
        name: round(x, digits)
        for name, x in (("median", middle), ("least", min(values)), ("most", max(values)))
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--many", type=int, default=1000, help="small clips for the memory; 0 leaves it out")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/evaluation_speed.json"))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    size = (arguments.frames, arguments.height, arguments.width)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(arguments.clips):
            make_clip(folder / "clips" / f"p{number}_seed0.mp4", number, *size)
        clips = find_clips(folder / "clips")
        rates: dict[int, list[float]] = {workers: [] for workers in arguments.workers}
        clips_per_second(clips[: arguments.workers[-1]], arguments.workers[-1])
        for _ in range(arguments.repetitions):
            for workers, values in rates.items():
                values.append(clips_per_second(clips, workers))
        parts = shares(clips[:4])
        peaks = memory_growth(folder, arguments.many, arguments.workers[-1]) if arguments.many else None
    first = rates[arguments.workers[0]]
    result = {
        "what": f"{arguments.clips} clips of {size[0]} frames of {size[2]}x{size[1]} pixels",
        "clips_per_second": {f"{workers} workers": summary(values) for workers, values in rates.items()},
        "ratio": {
            f"{workers} over {arguments.workers[0]}": summary(
                [many / one for many, one in zip(values, first, strict=True)]
            )
            for workers, values in rates.items()
            if workers != arguments.workers[0]
        },
        "share_of_time": parts,
        "peak_memory_mb": peaks,
        "repetitions": arguments.repetitions,
    }
    write_result(arguments.output, result, opencv=cv2.__version__)


if __name__ == "__main__":
    main()
