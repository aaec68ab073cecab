"""`vggrpo evaluate`: a folder of videos, and the reference beside it, to results, summary and report.

<output>/
    config.yaml       the settings of the last call
    clips.jsonl       one record a clip
    summary.json      means with intervals
    report.html       the page
    reference/        clips.jsonl and summary.json of the reference, where there is one
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vggrpo.config.errors import ConfigError
from vggrpo.config.evaluate import EvaluateSettings
from vggrpo.evaluation.videos.base import Clip, MetricSet
from vggrpo.evaluation.videos.choice import choose_metrics
from vggrpo.evaluation.videos.discovery import Pairing, find_clips, pair_clips
from vggrpo.evaluation.videos.engine import EngineSettings, measure_clips
from vggrpo.evaluation.videos.results import ClipResults, Record
from vggrpo.evaluation.videos.summary import (
    SUMMARY_NAME,
    difference_rows,
    metric_rows,
    not_run_reasons,
    size_notes,
    win_rate_rows,
)
from vggrpo.io import RunFolder, settings_to_yaml, write_json, write_text
from vggrpo.io.runs import CONFIG_NAME

REFERENCE_NAME = "reference"
REPORT_NAME = "report.html"


@dataclass(frozen=True)
class FolderEvaluation:
    """What came of an evaluation."""

    output: Path
    summary: dict[str, Any]
    """The content of summary.json."""
    failed: tuple[tuple[str, str], ...]
    """(clip, reason) of every clip that could not be measured, those of the reference included."""


def evaluate_folder(settings: EvaluateSettings, device: torch.device, command: str) -> FolderEvaluation:
    """Measures the videos, and their counterparts in the reference, and writes all results.

    Args:
        settings: of the command.
        device: of models.
        command: the line that asked for it, for the report.

    Raises:
        ConfigError: if there are no videos, nothing to measure, or no pairs, before anything is made.
        RunError: if `output` holds something else, or worker processes cannot start.
    """
    clips = find_clips(settings.folder)
    pairing = _pairing(settings, clips)
    metrics = choose_metrics(settings, device)
    if not metrics.metrics:
        raise ConfigError(
            "there is nothing to measure: name --metrics, or give a --geometry-model, "
            "a --video-reward, or dimensions of --vbench that can be had here"
        )
    run = RunFolder.start(settings.output, settings, settings.resume)
    output = run.path
    if settings.resume:
        _begin_again(output, settings)
    engine = EngineSettings(
        available_cpus() if settings.workers is None else settings.workers,
        round(settings.max_clip_gigabytes * 1e9),
    )
    results = ClipResults(output)
    records = measure_clips(clips, metrics, results, engine)
    reference: list[Record] = []
    if settings.reference is not None:
        wanted = list(pairing.reference.values())
        folder = output / REFERENCE_NAME
        folder.mkdir(exist_ok=True)
        reference = measure_clips(wanted, metrics, ClipResults(folder), engine, "evaluate the reference")
        summary = _summary(settings, metrics, reference, command, settings.reference)
        write_json(folder / SUMMARY_NAME, summary)
    pairs = _paired_records(records, reference, pairing)
    summary = _summary(settings, metrics, records, command, settings.folder)
    _add_notes(records, pairing, {record["clip"]: other for record, other in pairs})
    results.rewrite(records)
    if settings.reference is not None:
        summary["reference"] = difference_rows(pairs, metrics.value_names, settings.seed)
        summary["win_rates"] = win_rate_rows(
            pairs, metrics.value_names, settings.seed, settings.video_reward_tie
        )
        summary["reference_label"] = _label(settings.reference)
        summary["reference_pairs"] = len(pairs)
    write_json(output / SUMMARY_NAME, summary)
    failed = [(record["clip"], record["reason"]) for record in records if record["status"] == "failed"]
    failed += [
        (f"{REFERENCE_NAME}: {record['clip']}", record["reason"])
        for record in reference
        if record["status"] == "failed"
    ]
    return FolderEvaluation(output, summary, tuple(failed))


def _begin_again(output: Path, settings: EvaluateSettings) -> None:
    """Takes away what an earlier call concluded from clips that may change now, and records the settings.

    A folder without a summary counts as unfinished, which it is from here on.
    """
    (output / REPORT_NAME).unlink(missing_ok=True)
    (output / SUMMARY_NAME).unlink(missing_ok=True)
    if settings.reference is not None:
        (output / REFERENCE_NAME / SUMMARY_NAME).unlink(missing_ok=True)
    write_text(output / CONFIG_NAME, settings_to_yaml(settings.model_copy(update={"resume": False})))


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pairing(settings: EvaluateSettings, clips: Sequence[Clip]) -> Pairing:
    if settings.reference is None:
        return Pairing({}, ())
    return pair_clips(clips, find_clips(settings.reference), settings.reference)


def _paired_records(
    records: Sequence[Record], reference: Sequence[Record], pairing: Pairing
) -> list[tuple[Record, Record]]:
    by_name = {record["clip"]: record for record in reference}
    return [
        (record, by_name[pairing.reference[record["clip"]].name])
        for record in records
        if record["clip"] in pairing.reference
    ]


def _add_notes(records: Sequence[Record], pairing: Pairing, reference: dict[str, Record]) -> None:
    """Says on each clip what follows from the others: an unusual size, a missing counterpart."""
    _, sizes = size_notes(records)
    for record in records:
        name = record["clip"]
        if name in sizes:
            record["notes"].append(sizes[name])
        if name in pairing.without:
            record["notes"].append("has no counterpart in the reference")
        elif name in reference and reference[name]["status"] == "failed":
            record["notes"].append(f"its counterpart in the reference failed: {reference[name]['reason']}")


def _summary(
    settings: EvaluateSettings, metrics: MetricSet, records: Sequence[Record], command: str, source: Path
) -> dict[str, Any]:
    sizes, _ = size_notes(records)
    return {
        "command": command,
        "settings": settings.model_dump(mode="json"),
        "metric_settings": {metric.name: dict(metric.settings()) for metric in metrics.metrics},
        "label": settings.label if settings.label and source == settings.folder else _label(source),
        "num_clips": len(records),
        "num_failed": sum(record["status"] == "failed" for record in records),
        "metrics": metric_rows(records, metrics.value_names, settings.seed),
        "reference": None,
        "not_run": not_run_reasons(metrics),
        "notes": [] if sizes is None else [sizes],
    }


def _label(source: Path) -> str:
    return source.absolute().stem if source.is_file() else source.absolute().name
