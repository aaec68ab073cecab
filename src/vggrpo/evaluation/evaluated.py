"""What an evaluation left behind, read back: the clips as columns, the summary as it stands.

Two kinds of folder hold one: that of `vggrpo evaluate` (clips.jsonl and summary.json) and that of `vggrpo
train` (evaluations/step_*.json).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggrpo.config.errors import ConfigError, CorruptFileError
from vggrpo.evaluation.intervals import Interval
from vggrpo.evaluation.records import EvaluationRecords
from vggrpo.evaluation.videos.results import CLIPS_NAME
from vggrpo.evaluation.videos.summary import SUMMARY_NAME
from vggrpo.io import read_json

EVALUATIONS_NAME = "evaluations"
KINDS = ("static", "dynamic")

Key = tuple[str, int | None]


@dataclass(frozen=True)
class EvaluatedClip:
    """What is known of one clip beside its metrics."""

    name: str
    path: Path | None
    """The video file; None where none was kept."""
    prompt: str | None
    prompt_id: str | None
    seed: int | None
    kind: str | None
    """"static", "dynamic", or None where it is not known."""
    failure: str | None = None
    """Why it could not be measured; None if it was."""
    notes: tuple[str, ...] = ()
    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0

    @property
    def key(self) -> Key:
        """Pairs the clip with its like in another evaluation: (prompt_id, seed), or its name without a
        prompt.
        """
        return (self.name, None) if self.prompt_id is None else (self.prompt_id, self.seed)

    @property
    def cluster(self) -> str:
        """What intervals resample: clips of one prompt are not independent of each other."""
        return self.name if self.prompt_id is None else self.prompt_id


@dataclass(frozen=True, eq=False)
class EvaluatedClips:
    """All clips of one evaluation, in the order in which they finished."""

    label: str
    source: Path
    clips: tuple[EvaluatedClip, ...]
    values: Mapping[str, NDArray[np.float64]]
    """By metric [N]; NaN where a clip failed or could not be measured."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """The content of summary.json; empty for an evaluation of a training."""
    of_training: bool = False
    """Whether the seed of a clip is the number of its noise, which no seed of a video file has to do with."""

    @property
    def failed(self) -> list[EvaluatedClip]:
        """The clips that could not be measured."""
        return [clip for clip in self.clips if clip.failure is not None]

    def rows(self, kind: str | None = None) -> list[int]:
        """Places of the clips of one kind of scene; of all without one."""
        return [i for i, clip in enumerate(self.clips) if kind is None or clip.kind == kind]

    def by_key(self) -> dict[Key, int]:
        """The place of every clip by what pairs it.

        Raises:
            ValueError: if two clips have the same key: names both.
        """
        places: dict[Key, int] = {}
        for place, clip in enumerate(self.clips):
            first = places.setdefault(clip.key, place)
            if first != place:
                raise ValueError(
                    f"{self.clips[first].name} and {clip.name} of {self.label} both have the prompt id "
                    f"{clip.key[0]} and the seed {clip.key[1]}"
                )
        return places


def read_evaluation(path: Path | str) -> EvaluatedClips:
    """The evaluation in a folder of `vggrpo evaluate`, the newest one of a run of `vggrpo train`, or the one
    in a file of such a run (evaluations/step_000010.json).

    Raises:
        ConfigError: if `path` is none of them: says what is missing.
        CorruptFileError: if a file of it is damaged.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".json" and path.parent.name == EVALUATIONS_NAME:
        return _of_training(path)
    if not path.is_dir():
        raise ConfigError(f"there is no evaluation {path}; give a folder that `vggrpo evaluate` wrote")
    if (path / CLIPS_NAME).is_file():
        if not (path / SUMMARY_NAME).is_file():
            raise ConfigError(
                f"{path} holds an evaluation that is not finished (it has no {SUMMARY_NAME}); continue it "
                "with --resume"
            )
        return _of_folder(path)
    steps = sorted((path / EVALUATIONS_NAME).glob("step_*.json"))
    if steps:
        return _of_training(steps[-1])
    raise ConfigError(
        f"{path} is no evaluation: it has neither {CLIPS_NAME} and {SUMMARY_NAME} (`vggrpo evaluate`) nor "
        f"{EVALUATIONS_NAME}/step_*.json (`vggrpo train`)"
    )


def interval_of(figures: Mapping[str, Any] | None) -> Interval | None:
    """An interval as summary.json holds it; None where there is none."""
    if figures is None:
        return None
    mean, low, high = (_number(figures[end]) for end in ("mean", "low", "high"))
    return Interval(mean, low, high, int(figures["n"]))


def distinct_labels(evaluations: Sequence[EvaluatedClips]) -> tuple[str, ...]:
    """The labels; where several have the same one, their paths.

    Raises:
        ConfigError: if two evaluations are the same.
    """
    sources = [evaluation.source.resolve() for evaluation in evaluations]
    for source in sources:
        if sources.count(source) > 1:
            raise ConfigError(f"{source} is given twice; an evaluation cannot be compared with itself")
    labels = [evaluation.label for evaluation in evaluations]
    return tuple(
        str(evaluation.source) if labels.count(evaluation.label) > 1 else evaluation.label
        for evaluation in evaluations
    )


def _of_folder(folder: Path) -> EvaluatedClips:
    summary = read_json(folder / SUMMARY_NAME)
    if not isinstance(summary, dict) or not isinstance(summary.get("metrics"), dict):
        raise CorruptFileError(f"{folder / SUMMARY_NAME} is no summary of an evaluation (it has no metrics)")
    names = list(summary["metrics"])
    clips: dict[str, tuple[EvaluatedClip, list[float]]] = {}
    # A line at a time: records also hold what the summary does not need, such as metrics of earlier runs.
    with open(folder / CLIPS_NAME, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break  # left by a process that was killed as it wrote
            try:
                record = json.loads(line)
                row = [_number(record["metrics"].get(name)) for name in names]
                clips[record["clip"]] = _clip(record), row
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CorruptFileError(
                    f"line {number} of {folder / CLIPS_NAME} is no clip's record: "
                    f"{line.decode(errors='replace')[:60]!r}"
                ) from error
    table = np.array([row for _, row in clips.values()], dtype=np.float64).reshape(len(clips), len(names))
    return EvaluatedClips(
        str(summary.get("label") or folder.absolute().name),
        folder,
        tuple(clip for clip, _ in clips.values()),
        {name: table[:, place] for place, name in enumerate(names)},
        summary,
    )


def _clip(record: Mapping[str, Any]) -> EvaluatedClip:
    failed = record["status"] != "ok"
    return EvaluatedClip(
        record["clip"],
        None if record["path"] is None else Path(record["path"]),
        record["prompt"],
        record["prompt_id"],
        record["seed"],
        record["kind"],
        (record["reason"] or "no reason is recorded") if failed else None,
        tuple(record["notes"]),
        int(record["width"] or 0),
        int(record["height"] or 0),
        int(record["frames"] or 0),
        float(record["fps"] or 0),
    )


def _of_training(file: Path) -> EvaluatedClips:
    records = EvaluationRecords.load(file)
    run = file.parent.parent
    columns = zip(*(records.columns[name] for name in ("prompt_id", "sample", "kind", "prompt")), strict=True)
    clips = []
    for prompt_id, sample, kind, prompt in columns:
        name = f"{prompt_id}_{sample}.mp4"
        video = run / "samples" / file.stem / name
        path = video if video.is_file() else None
        known = kind if kind in KINDS else None
        clips.append(EvaluatedClip(name, path, prompt, prompt_id, sample, known))
    values = {name: records.values(name) for name in records.metrics}
    label = f"{run.absolute().name} {file.stem}"
    return EvaluatedClips(label, file, tuple(clips), values, of_training=True)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
