"""What a metric over video files is, and where it runs.

Three kinds, by what they cost. A `FrameMetric` needs no model: it runs in the worker process that decodes the
clip. A `ModelMetric` prepares a small array there, and its model sees batches of them in the main process. A
`FileMetric` is given the files themselves, all that it has not measured yet, at the end.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""[T, H, W, 3], RGB."""
Kind = Literal["static", "dynamic"]
NOT_UTF8 = "its path is not UTF-8, which results are written in; rename it"


def as_utf8(text: str) -> str:
    """The same text, but with escapes for what UTF-8 cannot hold: bytes of a file name that are none."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Clip:
    """A video file that is to be measured."""

    name: str
    """Path relative to the folder or manifest; names the clip in results, which are UTF-8."""
    path: Path
    prompt: str | None = None
    prompt_id: str | None = None
    seed: int | None = None
    kind: Kind | None = None
    notes: tuple[str, ...] = ()
    """What was wrong with the words about it."""

    @property
    def unusable(self) -> str | None:
        """Why the clip cannot be measured, whatever the file holds; None if it can."""
        return None if str(self.path) == as_utf8(str(self.path)) else NOT_UTF8

    @property
    def key(self) -> tuple[str, int | None]:
        """Pairs the clip with its like in another folder: (prompt_id, seed), or the name without a prompt."""
        return (self.name, None) if self.prompt_id is None else (self.prompt_id, self.seed)

    @property
    def cluster(self) -> str:
        """What intervals resample: clips of one prompt are not independent of each other."""
        return self.name if self.prompt_id is None else self.prompt_id


@dataclass(frozen=True, eq=False)
class Video:
    """A decoded clip: at least one frame, all of one size."""

    frames: Frames
    """[T, H, W, 3], RGB."""
    fps: float
    """Mean frames per second; 0 if the file does not say."""


@dataclass(frozen=True)
class Measured:
    """What one metric says about one clip."""

    values: dict[str, float]
    """By metric name; NaN where the clip cannot be measured."""
    notes: tuple[str, ...] = ()
    """Why a value is NaN, and what else a reader must know; results put the metric's name before each."""


@dataclass(frozen=True)
class NotRun:
    """A metric that was asked for and cannot be had here: its row says why and has no number."""

    metrics: tuple[str, ...]
    reason: str


class VideoMetric(ABC):
    """What the three kinds share. Objects are small and frozen: settings, no state."""

    name: str
    """Of the whole, one word; its results are found again under it."""
    metrics: tuple[str, ...]
    """The names of its values; each is described in `vggrpo.evaluation.catalogue`."""
    uses_prompt: ClassVar[bool] = False
    """Whether values depend on the clip's prompt: they are measured again if it changes."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What determines the values beside the clip, for JSON: options, hashes of weights, versions."""

    @property
    def fingerprint(self) -> str:
        """A finished clip is measured again only if this changes."""
        text = json.dumps({"name": self.name, **self.settings()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def unmeasured(self, reason: str) -> Measured:
        """NaN for every value, with the reason."""
        return Measured(dict.fromkeys(self.metrics, float("nan")), (reason,))


class FrameMetric(VideoMetric):
    """Runs in worker processes: must be picklable, deterministic, and use one thread."""

    @abstractmethod
    def compute(self, video: Video, clip: Clip) -> Measured:
        """The values of one clip; NaN with a note where it cannot be measured.

        Raises:
            ValueError: if the clip's numbers break the metric; this value is then missing, with the reason.
        """


class ModelMetric(VideoMetric):
    """Runs in the main process, clips of one prepared shape together."""

    batch_size: int = 1

    @property
    @abstractmethod
    def prepare(self) -> Callable[[Video, Clip], NDArray[Any]]:
        """Makes what the model needs from a clip, in a worker process.

        Must be picklable and hold no model: a module's function, a `functools.partial` of one, or a small
        frozen dataclass with `__call__`. It raises ValueError with a sentence where the clip cannot be used.
        """

    @abstractmethod
    def open(self) -> None:
        """Loads the model; called once, before the first batch, and not at all if there is none."""

    @abstractmethod
    def compute(self, prepared: NDArray[Any], clips: Sequence[Clip]) -> list[Measured]:
        """The values of a batch: prepared arrays [B, ...] of B <= batch_size clips."""


class FileMetric(VideoMetric):
    """Runs once in the main process, over files: for tools of other environments."""

    @abstractmethod
    def compute(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, Measured]]:
        """Yields each clip with its values as soon as they are known; what was yielded is kept."""


@dataclass(frozen=True)
class MetricSet:
    """All that is asked of a folder."""

    metrics: tuple[VideoMetric, ...]
    not_run: tuple[NotRun, ...] = field(default=())

    def __post_init__(self) -> None:
        names = [name for metric in self.metrics for name in metric.metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two metrics give the same value {', '.join(twice)}; leave one of them out")

    @property
    def frame(self) -> tuple[FrameMetric, ...]:
        """Those that run in workers."""
        return tuple(metric for metric in self.metrics if isinstance(metric, FrameMetric))

    @property
    def model(self) -> tuple[ModelMetric, ...]:
        """Those that run a model."""
        return tuple(metric for metric in self.metrics if isinstance(metric, ModelMetric))

    @property
    def file(self) -> tuple[FileMetric, ...]:
        """Those that run over files at the end."""
        return tuple(metric for metric in self.metrics if isinstance(metric, FileMetric))

    @property
    def value_names(self) -> tuple[str, ...]:
        """The names of all values, in order."""
        return tuple(name for metric in self.metrics for name in metric.metrics)
