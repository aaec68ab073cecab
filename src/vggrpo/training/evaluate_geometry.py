"""`vggrpo evaluate-geometry`: geometry models against exact geometry, with a robustness curve.

<output>/
    config.yaml, inputs.json     the settings; fingerprints of models and clips
    pixels/ decoded/ latents/    clips.jsonl and summary.json of each reading
    noise/clips.jsonl            the same clips under noise
    evaluation.json              all figures
    geometry.png                 the plot
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggrpo.config import CorruptFileError, EvaluateGeometrySettings, RunError
from vggrpo.evaluation.geometry_metrics import GEOMETRY_METRICS
from vggrpo.evaluation.geometry_plot import plot_geometry
from vggrpo.evaluation.geometry_records import accuracy_curve, measure_scenes, not_run
from vggrpo.evaluation.videos.results import ClipResults, Record
from vggrpo.evaluation.videos.summary import SUMMARY_NAME, difference_rows, metric_rows
from vggrpo.geometry import SceneGeometry
from vggrpo.io import ProgressBar, RunFolder, progress, read_json, write_json
from vggrpo.training.exact_clips import ExactClip, ExactClips, open_exact_clips
from vggrpo.training.geometry_readers import LABELS, GeometryReaders, open_readers
from vggrpo.training.geometry_under_noise import measure_levels, noise_figures
from vggrpo.training.lgm_gate import channel_std
from vggrpo.training.rewards import build_rewards
from vggrpo.training.runtime import choose_device

EVALUATION_NAME, PLOT_NAME = "evaluation.json", "geometry.png"
INPUTS_NAME, NOISE_NAME = "inputs.json", "noise"


@dataclass(frozen=True)
class GeometryEvaluation:
    """What came of an evaluation."""

    output: Path
    figures: dict[str, Any]
    """The content of evaluation.json."""
    failed: tuple[tuple[str, str], ...]
    """(clip, reason) of every clip that could not be measured."""


def evaluate_geometry(settings: EvaluateGeometrySettings, command: str) -> GeometryEvaluation:
    """Measures the models on the clips and writes all results; `command` is the line that asked for it.

    Raises:
        ConfigError: if clips or models do not exist or do not fit, before anything is made.
        RunError: if `output` holds something else, or was made from other clips or models.
        FileNotFoundError, CorruptFileError: if a model is missing or damaged.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    clips = open_exact_clips(settings)
    readers = open_readers(settings, choose_device(settings.device))
    run = RunFolder.start(settings.output, settings, settings.resume)
    output = run.path
    _check_inputs(output, {"models": readers.identity, "clips": clips.identity()})
    results = {name: ClipResults(output / name) for name in readers.names}
    noise = ClipResults(output / NOISE_NAME)
    noisy = min(settings.noise_clips, len(clips.names)) if settings.measures_noise else 0
    with progress("evaluate geometry", len(clips.names) + noisy, unit="clip") as bar:
        records = _measure_clips(readers, clips, results, settings, bar)
        usable = [number for number, r in enumerate(records[readers.names[-1]]) if r["status"] == "ok"]
        under_noise = _measure_noise(readers, clips, noise, usable[:noisy], settings, bar)
    figures = _summarise(output, records, settings, command)
    figures["inputs"] = {"models": readers.identity, "clips": clips.identity()}
    figures["noise"] = None
    if under_noise:
        rewards = build_rewards(settings.rewards)
        figures["noise"] = noise_figures(under_noise, settings.noise_levels, rewards, settings.seed)
    write_json(output / EVALUATION_NAME, figures)
    plot_geometry(figures, records, output / PLOT_NAME)
    failed = {r["clip"]: r["reason"] for rs in records.values() for r in rs if r["status"] == "failed"}
    return GeometryEvaluation(output, figures, tuple(failed.items()))


def _check_inputs(output: Path, inputs: dict[str, Any]) -> None:
    """Keeps what is measured from being mixed with what was measured on something else."""
    path = output / INPUTS_NAME
    if path.is_file() and read_json(path) != inputs:
        raise RunError(
            f"{output} was made from other clips or models of the same names; evaluate into another --output"
        )
    write_json(path, inputs)


def _measure_clips(
    readers: GeometryReaders,
    clips: ExactClips,
    results: Mapping[str, ClipResults],
    settings: EvaluateGeometrySettings,
    bar: ProgressBar,
) -> dict[str, list[Record]]:
    """By reading, the records of all clips in their order; those that were finished are not made again."""
    known = {name: files.load() for name, files in results.items()}
    for files in results.values():
        files.path.parent.mkdir(exist_ok=True)
    missing = [
        number
        for number in range(len(clips.names))
        if not all(_is_finished(records, clips, number) for records in known.values())
    ]
    bar.advance(len(clips.names) - len(missing))
    for start in range(0, len(missing), settings.batch_size):
        numbers = missing[start : start + settings.batch_size]
        for number, made in _measured(readers, clips, numbers):
            for name, record in made.items():
                known[name][clips.names[number]] = record
                results[name].append(record)
            bar.advance()
    ordered = {name: [records[clip] for clip in clips.names] for name, records in known.items()}
    for name, records in ordered.items():
        results[name].rewrite(records)
    return ordered


def _is_finished(known: Mapping[str, Record], clips: ExactClips, number: int) -> bool:
    """Whether an earlier run measured this very clip."""
    record = known.get(clips.names[number], {"status": "missing"})
    return record["status"] == "ok" and record["sha256"] == clips.sha256(number)


def _measured(
    readers: GeometryReaders, clips: ExactClips, numbers: Sequence[int]
) -> Iterator[tuple[int, dict[str, Record]]]:
    """(number, record by reading) of the clips; a clip that cannot be measured has a record that says why."""
    for group, loaded in _grouped(numbers, clips.load(numbers)):
        if isinstance(loaded, str):
            yield group[0], _failed(readers, clips.names[group[0]], loaded)
            continue
        frames = torch.cat([clip.frames for clip in loaded])
        try:
            scenes = readers.read(frames)
        except ValueError as error:  # a size that a model cannot take, as its text says
            for number in group:
                yield number, _failed(readers, clips.names[number], str(error))
            continue
        truth = _views(readers, loaded)
        measured = {name: measure_scenes(scene, truth) for name, scene in scenes.items()}
        for row, number in enumerate(group):
            about = _about(clips.names[number], loaded[row])
            yield number, {name: about | records[row] for name, records in measured.items()}


def _measure_noise(
    readers: GeometryReaders,
    clips: ExactClips,
    results: ClipResults,
    numbers: Sequence[int],
    settings: EvaluateGeometrySettings,
    bar: ProgressBar,
) -> list[Record]:
    """The records under noise of clips that could be measured without."""
    if not numbers:
        return []
    results.path.parent.mkdir(exist_ok=True)
    known = results.load()
    missing = [number for number in numbers if not _is_finished(known, clips, number)]
    bar.advance(len(numbers) - len(missing))
    if missing:
        latents = dict(_encoded(readers, clips, numbers, settings.batch_size))
        std, rewards = channel_std(latents.values()), build_rewards(settings.rewards)
        for group, loaded in _batches(clips, missing, settings.batch_size):
            made = measure_levels(
                readers,
                torch.cat([latents[number] for number in group]).to(readers.device),
                _views(readers, loaded),
                group,
                std=std,
                levels=settings.noise_levels,
                rewards=rewards,
                seed=settings.seed,
            )
            for number, record in zip(group, made, strict=True):
                name = clips.names[number]
                known[name] = {"clip": name, "sha256": clips.sha256(number), "status": "ok", **record}
                results.append(known[name])
                bar.advance()
    return [known[clips.names[number]] for number in numbers]


@torch.no_grad()
def _encoded(
    readers: GeometryReaders, clips: ExactClips, numbers: Sequence[int], size: int
) -> Iterator[tuple[int, Tensor]]:
    """(number, latents [1, C, T, H, W] on the CPU)."""
    for group, loaded in _batches(clips, numbers, size):
        latents = readers.encode(torch.cat([clip.frames for clip in loaded])).cpu()
        yield from zip(group, latents.split(1), strict=True)


def _batches(
    clips: ExactClips, numbers: Sequence[int], size: int
) -> Iterator[tuple[list[int], list[ExactClip]]]:
    """Clips that can be loaded, at most `size` of one raster together.

    Raises:
        CorruptFileError: if one no longer can.
    """
    for start in range(0, len(numbers), size):
        batch = numbers[start : start + size]
        for group, loaded in _grouped(batch, clips.load(batch)):
            if isinstance(loaded, str):
                raise CorruptFileError(f"{clips.names[group[0]]} has changed meanwhile: {loaded}")
            yield group, loaded


def _grouped(
    numbers: Sequence[int], loaded: Iterator[ExactClip | str]
) -> Iterator[tuple[list[int], list[ExactClip] | str]]:
    """Successive clips of one size together; one that could not be loaded alone, with the reason."""
    pairs = list(zip(numbers, loaded, strict=True))
    for _, group in groupby(pairs, key=_size):
        members = list(group)
        first = members[0][1]
        if isinstance(first, str):
            yield [members[0][0]], first
        else:
            yield [number for number, _ in members], [c for _, c in members if isinstance(c, ExactClip)]


def _size(pair: tuple[int, ExactClip | str]) -> Any:
    number, clip = pair
    return number if isinstance(clip, str) else (tuple(clip.frames.shape), set(clip.geometry.as_dict()))


def _views(readers: GeometryReaders, clips: Sequence[ExactClip]) -> SceneGeometry:
    """The exact geometry of the views that the models see."""
    truth = SceneGeometry.concatenate([clip.geometry for clip in clips])
    return truth.select(slice(None, None, readers.stride))


def _about(name: str, clip: ExactClip) -> Record:
    _, frames, height, width, _ = clip.frames.shape
    size = {"frames": frames, "height": height, "width": width}
    return {"clip": name, "status": "ok", "reason": None, **clip.facts, **size}


def _failed(readers: GeometryReaders, name: str, reason: str) -> dict[str, Record]:
    record: Record = {"clip": name, "status": "failed", "reason": reason}
    record |= dict.fromkeys(("path", "sha256", "prompt", "prompt_id", "seed", "kind"))
    record |= {"frames": 0, "height": 0, "width": 0, "fps": 0.0}
    record |= {"metrics": dict.fromkeys(GEOMETRY_METRICS), "notes": []}
    return {reading: dict(record) for reading in readers.names}


def _summarise(
    output: Path,
    records: Mapping[str, Sequence[Record]],
    settings: EvaluateGeometrySettings,
    command: str,
) -> dict[str, Any]:
    """Writes the summary of each reading, and returns all of them; later ones are compared with the first."""
    readings: dict[str, Any] = {}
    first = next(iter(records))
    for name, of_reading in records.items():
        missing = not_run(of_reading)
        metrics = [metric for metric in GEOMETRY_METRICS if metric not in missing]
        summary = {
            "command": command,
            "settings": settings.model_dump(mode="json"),
            "label": LABELS[name],
            "num_clips": len(of_reading),
            "num_failed": sum(record["status"] == "failed" for record in of_reading),
            "metrics": metric_rows(of_reading, metrics, settings.seed),
            "reference": None,
            "not_run": missing,
            "notes": [],
        }
        if name != first:
            pairs = list(zip(of_reading, records[first], strict=True))
            summary["reference"] = difference_rows(pairs, metrics, settings.seed)
            summary["reference_label"] = LABELS[first]
            summary["reference_pairs"] = len(pairs)
        write_json(output / name / SUMMARY_NAME, summary)
        shown = ("label", "num_clips", "num_failed", "metrics", "reference", "not_run")
        readings[name] = {key: summary[key] for key in shown} | {"accuracy": accuracy_curve(of_reading)}
    return {"command": command, "settings": settings.model_dump(mode="json"), "readings": readings}
