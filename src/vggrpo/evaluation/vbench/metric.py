"""A dimension of VBench as a metric over files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vggrpo.evaluation.vbench.environment import VBenchState, vbench_state
from vggrpo.evaluation.vbench.process import VBenchError, ask
from vggrpo.evaluation.videos.base import Clip, FileMetric, Measured, NotRun

SUFFIX = ".mp4"
"""Of the only files that every dimension reads."""


@dataclass(eq=False)
class VBenchMetric(FileMetric):
    """One dimension, computed by VBench on the files themselves."""

    dimension: str
    python: Path
    """Of VBench's environment."""
    environment: str
    """Names the environment: results of an older one are not kept."""
    device: torch.device
    name: str = field(init=False)
    metrics: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.name = metric_name(self.dimension)
        self.metrics = (self.name,)

    def settings(self) -> Mapping[str, Any]:
        """See the class."""
        return {"environment": self.environment, "device": self.device.type}

    def compute(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, Measured]]:
        """See the class."""
        pending: dict[str, Clip] = {}
        for clip in clips:
            if clip.path.suffix == SUFFIX:
                pending[str(clip.path.absolute())] = clip
            else:
                yield clip, self.unmeasured(f"VBench reads {SUFFIX} files, and this is {clip.path.suffix}")
        problem = "VBench gives no value"
        try:
            paths = [clip.path for clip in pending.values()]
            for answer in ask(self.python, self.dimension, str(self.device), paths):
                clip = pending.pop(answer["video"])
                if "value" in answer:
                    yield clip, Measured({self.name: answer["value"]})
                else:
                    yield clip, self.unmeasured(f"VBench failed ({answer['reason']})")
        except VBenchError as error:
            problem = f"VBench failed ({error})"
        for clip in pending.values():
            yield clip, self.unmeasured(problem)


def metric_name(dimension: str) -> str:
    """The name under which a dimension stands in results."""
    return f"vbench_{dimension}"


def open_vbench(
    dimensions: Sequence[str], device: torch.device, state: VBenchState | None = None
) -> tuple[list[VBenchMetric], list[NotRun]]:
    """The metrics of the dimensions that can be measured here, and the reasons why others cannot.

    Args:
        dimensions: as VBench calls them.
        device: where they run.
        state: of the environment; looked at if None.
    """
    state = vbench_state() if state is None else state
    metrics: list[VBenchMetric] = []
    not_run: list[NotRun] = []
    for dimension in dimensions:
        reason = state.reason(dimension)
        if reason is None:
            metrics.append(VBenchMetric(dimension, state.python, state.created, device))
        else:
            not_run.append(NotRun((metric_name(dimension),), reason))
    return metrics, not_run
