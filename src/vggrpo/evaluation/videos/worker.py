"""What happens to one clip in a worker process: hash, decode, frame metrics, preparation for models."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2
import torch
from numpy.typing import NDArray

from vggrpo.config.errors import VggrpoError
from vggrpo.evaluation.videos.base import Clip, FrameMetric, Measured, Video
from vggrpo.evaluation.videos.decoding import decode_clip
from vggrpo.io import file_sha256

Prepare = Callable[[Video, Clip], NDArray[Any]]


@dataclass(frozen=True)
class Workload:
    """What workers do to every clip; sent to each once."""

    frame_metrics: tuple[FrameMetric, ...]
    preparations: Mapping[str, Prepare]
    """By the name of the model metric."""
    fingerprints: Mapping[str, str]
    """By the name of the metric, frame and model metrics alike."""
    max_bytes: int | None = None
    """Largest size of a clip's decoded frames."""


@dataclass(frozen=True)
class Task:
    """One clip, and what an earlier run found out about a file of its name."""

    clip: Clip
    sha256: str | None = None
    known: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints by metric name of what was measured on the file with that hash."""


@dataclass(frozen=True)
class Outcome:
    """What came of a task."""

    clip: Clip
    sha256: str | None = None
    reason: str | None = None
    """Why the clip failed; None if it did not."""
    reused: bool = False
    """Whether everything was known already: nothing was decoded, and what follows is empty."""
    num_frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    notes: tuple[str, ...] = ()
    measured: Mapping[str, Measured] = field(default_factory=dict)
    """By metric name."""
    prepared: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """By the name of the model metric that still has to see it."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time of each part: "decode", the metrics' names, "prepare"."""


def measure_clip(task: Task, workload: Workload) -> Outcome:
    """Measures on one clip what is not known about it; never raises because of the clip."""
    clip = task.clip
    if clip.unusable is not None:
        return Outcome(clip, reason=clip.unusable)
    sha256 = None
    try:
        sha256 = file_sha256(clip.path)
        known = task.known if sha256 == task.sha256 else {}
        pending = {name for name, print_ in workload.fingerprints.items() if known.get(name) != print_}
        if not pending and sha256 == task.sha256:
            return Outcome(clip, sha256, reused=True)
        seconds: dict[str, float] = {}
        with _timed(seconds, "decode"):
            video, notes = decode_clip(clip.path, workload.max_bytes)
    except (VggrpoError, OSError, MemoryError) as error:
        return Outcome(clip, sha256, reason=_reason(error))
    measured: dict[str, Measured] = {}
    prepared: dict[str, NDArray[Any]] = {}
    for metric in workload.frame_metrics:
        if metric.name in pending:
            with _timed(seconds, metric.name):
                measured[metric.name] = _compute(metric, video, clip)
    for name, prepare in workload.preparations.items():
        if name in pending:
            with _timed(seconds, "prepare"):
                try:
                    prepared[name] = prepare(video, clip)
                except ValueError as error:
                    measured[name] = Measured({}, (str(error),))
    length, height, width, _ = video.frames.shape
    return Outcome(
        clip, sha256, None, False, length, height, width, video.fps, notes, measured, prepared, seconds
    )


_workload: Workload | None = None
"""Of this worker process."""


def start_worker(workload: Workload) -> None:
    """Makes a fresh process a worker: one thread, and deaf to Ctrl-C, which the main process handles."""
    global _workload
    _workload = workload
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def run_in_worker(task: Task) -> Outcome:
    """`measure_clip` with the worker's workload."""
    assert _workload is not None, "start_worker was not called"
    return measure_clip(task, _workload)


def _compute(metric: FrameMetric, video: Video, clip: Clip) -> Measured:
    try:
        return metric.compute(video, clip)
    except (ValueError, ArithmeticError, cv2.error) as error:
        return metric.unmeasured(f"failed ({error})")


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "its frames do not fit into memory; use fewer --workers, or cut or shrink the video"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return str(error)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start
