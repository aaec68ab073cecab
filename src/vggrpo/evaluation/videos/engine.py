"""A list of clips through all metrics: workers in the background, models here, results as they come."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggrpo.evaluation.videos.base import Clip, Measured, MetricSet, ModelMetric
from vggrpo.evaluation.videos.pool import run_tasks
from vggrpo.evaluation.videos.results import (
    ClipResults,
    Record,
    add_measured,
    complete,
    forget_prompts,
    record_of,
    task_of,
)
from vggrpo.evaluation.videos.worker import Workload
from vggrpo.io import progress

WAITING_BATCHES = 4
"""Prepared clips of different shapes that may wait for others of theirs, in batches of the model."""


@dataclass(frozen=True)
class EngineSettings:
    """How clips are measured; nothing here changes a value."""

    workers: int
    """Processes; 0 measures here."""
    max_bytes: int | None = None
    """Largest size of a clip's decoded frames."""


@dataclass
class _Pending:
    """A clip that waits for models."""

    record: Record
    clip: Clip
    missing: set[str]
    """Names of the model metrics that have not seen it."""


def measure_clips(
    clips: Sequence[Clip],
    metrics: MetricSet,
    results: ClipResults,
    settings: EngineSettings,
    description: str = "evaluate",
) -> list[Record]:
    """Measures every clip whose results are not there yet, and returns all records in the order of `clips`.

    A clip's line is appended when all its frame and model metrics are done; file metrics follow at the end.
    What an earlier call measured on the same file (by its SHA-256) with the same settings is kept.
    The number of frames and prepared arrays in memory does not grow with the number of clips; the records do.

    Raises:
        RunError: if worker processes cannot start.
        CorruptFileError: if the results of an earlier call are damaged.
        DiskFullError: if the space runs out; finished clips are kept.
    """
    before = results.load()
    forget_prompts(before, clips, metrics)
    workload = Workload(
        metrics.frame,
        {metric.name: metric.prepare for metric in metrics.model},
        {metric.name: metric.fingerprint for metric in (*metrics.frame, *metrics.model)},
        settings.max_bytes,
    )
    records: dict[str, Record] = {}
    with progress(description, len(clips), unit="clip") as bar:

        def finish(record: Record) -> None:
            record = complete(record, metrics)
            records[record["clip"]] = record
            results.append(record)
            bar.advance()

        models = _ModelQueues(metrics.model, finish)
        tasks = (task_of(before.get(clip.name), clip=clip) for clip in clips)
        for outcome in run_tasks(tasks, workload, settings.workers):
            record = record_of(outcome, before.get(outcome.clip.name), metrics)
            if outcome.prepared:
                models.add(_Pending(record, outcome.clip, set(outcome.prepared)), outcome.prepared)
            else:
                finish(record)
        models.flush()
    ordered = [records[clip.name] for clip in clips]
    _measure_files(clips, metrics, ordered, results)
    ordered = [complete(record, metrics) for record in ordered]
    results.rewrite(ordered)
    return ordered


class _ModelQueues:
    """Prepared clips by metric and shape, until a batch is full."""

    def __init__(self, metrics: Sequence[ModelMetric], finish: Callable[[Record], None]) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._finish = finish
        self._waiting: dict[tuple[str, tuple[int, ...]], list[tuple[_Pending, NDArray[Any]]]] = {}
        self._opened: set[str] = set()

    def add(self, pending: _Pending, prepared: Mapping[str, NDArray[Any]]) -> None:
        """Queues a clip; runs what has become a full batch."""
        for name, array in prepared.items():
            key = (name, array.shape)
            queue = self._waiting.setdefault(key, [])
            queue.append((pending, array))
            if len(queue) >= self._metrics[name].batch_size:
                self._run(key)
            elif self._count(name) >= WAITING_BATCHES * self._metrics[name].batch_size:
                self._run(
                    max((k for k in self._waiting if k[0] == name), key=lambda k: len(self._waiting[k]))
                )

    def flush(self) -> None:
        """Runs everything that waits."""
        for key in list(self._waiting):
            self._run(key)

    def _count(self, name: str) -> int:
        return sum(len(queue) for key, queue in self._waiting.items() if key[0] == name)

    def _run(self, key: tuple[str, tuple[int, ...]]) -> None:
        name, _ = key
        metric, queue = self._metrics[name], self._waiting.pop(key)
        if name not in self._opened:
            metric.open()
            self._opened.add(name)
        clips = [pending.clip for pending, _ in queue]
        found: list[Measured] = metric.compute(np.stack([array for _, array in queue]), clips)
        for (pending, _), measured in zip(queue, found, strict=True):
            add_measured(pending.record, name, metric.fingerprint, measured)
            pending.missing.discard(name)
            if not pending.missing:
                self._finish(pending.record)


def _measure_files(
    clips: Sequence[Clip], metrics: MetricSet, records: Sequence[Record], results: ClipResults
) -> None:
    """Gives each file metric the clips that it has not measured, and keeps what it yields."""
    by_name = {record["clip"]: record for record in records}
    for metric in metrics.file:
        missing = []
        for clip in clips:
            record = by_name[clip.name]
            known = record["measured"].get(metric.name, {}).get("fingerprint")
            if record["status"] == "ok" and known != metric.fingerprint:
                missing.append(clip)
        if not missing:
            continue
        with progress(metric.name, len(clips), len(clips) - len(missing), unit="clip") as bar:
            for clip, measured in metric.compute(missing):
                record = by_name[clip.name]
                add_measured(record, metric.name, metric.fingerprint, measured)
                results.append(complete(record, metrics))
                bar.advance()
