"""`vggrpo score`: clips to records, a summary and pictures.

<output>/
    config.yaml       the settings
    clips.jsonl       one record a clip
    summary.json      means with intervals
    plots/<clip>.png  one picture a clip
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vggrpo.config import CorruptFileError, ScoreSettings
from vggrpo.config.errors import RunError
from vggrpo.evaluation.scoring.clips import find_scored_clips
from vggrpo.evaluation.scoring.plot import plot_scores
from vggrpo.evaluation.scoring.readers import SceneReader, open_reader
from vggrpo.evaluation.scoring.record import score_names, score_scene
from vggrpo.evaluation.videos.base import Clip, as_utf8
from vggrpo.evaluation.videos.results import ClipResults, Record
from vggrpo.evaluation.videos.summary import SUMMARY_NAME, metric_rows
from vggrpo.io import RunFolder, file_sha256, progress, write_json
from vggrpo.rewards import SceneReward

PLOTS_NAME = "plots"
UNUSABLE = (FileNotFoundError, PermissionError, CorruptFileError, ValueError)


@dataclass(frozen=True)
class Scoring:
    """What came of scoring."""

    output: Path
    records: list[Record]
    summary: dict[str, Any]

    @property
    def failed(self) -> list[Record]:
        """The clips that could not be scored."""
        return [record for record in self.records if record["status"] == "failed"]

    @property
    def notes(self) -> list[str]:
        """What else there is to say about scored clips, each sentence once, with whom it is about."""
        clips: dict[str, list[str]] = {}
        for record in self.records:
            if record["status"] == "ok":
                for note in record["notes"]:
                    clips.setdefault(note, []).append(record["clip"])
        return [
            f"{names[0] if len(names) == 1 else f'{len(names)} clips'}: {note}"
            for note, names in clips.items()
        ]


def score_clips(
    settings: ScoreSettings, rewards: Mapping[str, SceneReward], device: torch.device, command: str
) -> Scoring:
    """Scores every clip and writes all results; a bad clip has a record that says what is wrong with it.

    Args:
        settings: of the command.
        rewards: by name, as `settings.rewards` describes them.
        device: where the models run.
        command: the line that asked for it.

    Raises:
        ConfigError: if there is nothing to score, or models do not exist or do not fit, before anything is
            made.
        FileNotFoundError, CorruptFileError: if a model is missing or damaged.
        RunError: if `output` holds something else, or was made by other models.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    clips = find_scored_clips(settings.paths, settings.space)
    reader = open_reader(settings, clips, device)
    run = RunFolder.start(settings.output, settings, settings.resume)
    output = run.path
    results = ClipResults(output)
    records = results.load()
    _require_same_model([records[clip.name] for clip in clips if clip.name in records], reader, output)
    # What an earlier call concluded does not hold once a clip is scored again.
    (output / SUMMARY_NAME).unlink(missing_ok=True)
    with progress("score", len(clips), unit="clip") as bar:
        for clip in clips:
            known = records.get(clip.name)
            if known is not None and _is_finished(known, clip, output, settings):
                records[clip.name] = _reused(known, clip)
            else:
                records[clip.name] = _score(clip, reader, rewards, output, settings)
                results.append(records[clip.name])
            bar.advance()
    ordered = [records[clip.name] for clip in clips]
    results.rewrite(ordered)
    names = score_names(list(rewards), settings.space)
    summary = {
        "command": command,
        "settings": settings.model_dump(mode="json"),
        "metric_settings": _metric_settings(settings, rewards, reader),
        "label": settings.label or output.absolute().name,
        "num_clips": len(ordered),
        "num_failed": sum(record["status"] == "failed" for record in ordered),
        "metrics": metric_rows(ordered, names, settings.seed),
        "reference": None,
        "not_run": {},
        "notes": [],
    }
    write_json(output / SUMMARY_NAME, summary)
    return Scoring(output, ordered, summary)


def plot_path(name: str) -> Path:
    """Where the picture of a clip lies in the output, by the clip's name.

    A name that is a path out of a folder has a hash of it in place of its folders.
    """
    path = Path(name)
    if not path.is_absolute() and ".." not in path.parts:
        return Path(PLOTS_NAME) / f"{name}.png"
    return Path(PLOTS_NAME) / f"{path.name}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.png"


def _metric_settings(
    settings: ScoreSettings, rewards: Mapping[str, SceneReward], reader: SceneReader
) -> dict[str, dict[str, Any]]:
    """What determines each reward beside the clip, as summaries of `vggrpo evaluate` say it of metrics."""
    options = settings.rewards.model_dump(mode="json")
    return {name: reader.identity() | options[name] for name in rewards}


def _require_same_model(records: Iterable[Record], reader: SceneReader, output: Path) -> None:
    """Raises RunError if an earlier run scored clips by another model."""
    if any(record["status"] == "ok" and record["model"] != reader.identity() for record in records):
        raise RunError(f"{output} was made by another model of the same name; score into another --output")


def _is_finished(record: Record, clip: Clip, output: Path, settings: ScoreSettings) -> bool:
    """Whether an earlier run scored this very file, and drew it if that is asked for."""
    if record["status"] != "ok":
        return False
    plot = plot_path(clip.name)
    has_plot = record["plot"] == plot.as_posix() and (output / plot).is_file()
    drawn = not settings.plots or record["plot"] is None or has_plot
    return drawn and clip.path.is_file() and file_sha256(clip.path) == record["sha256"]


def _score(
    clip: Clip,
    reader: SceneReader,
    rewards: Mapping[str, SceneReward],
    output: Path,
    settings: ScoreSettings,
) -> Record:
    """The record of a clip; draws it, unless there is nothing to see."""
    record: Record = _known_of(clip) | {
        "sha256": None,
        "status": "failed",
        "reason": None,
        "model": reader.identity(),
        "plot": None,
    }
    try:
        if clip.unusable is not None:
            raise ValueError(clip.unusable)
        record["sha256"] = file_sha256(clip.path)
        seen = reader.read(clip)
    except UNUSABLE as error:
        empty = {"source": None, "frames": 0, "height": 0, "width": 0, "fps": 0.0}
        metrics = dict.fromkeys(score_names(list(rewards), settings.space))
        return (
            record
            | empty
            | {
                "reason": _reason(error),
                "metrics": metrics,
                "views": {"frames": []},
                "notes": list(clip.notes),
            }
        )
    about, scored = score_scene(seen.scene, rewards, settings.space)
    if settings.plots and scored:
        plot = plot_path(clip.name)
        (output / plot).parent.mkdir(parents=True, exist_ok=True)
        plot_scores(clip.name, seen, rewards, scored, output / plot)
        record["plot"] = plot.as_posix()
    return (
        record
        | seen.facts
        | {
            "status": "ok",
            "metrics": about["metrics"],
            "views": {"frames": list(seen.view_frames), **about["views"]},
            "notes": [*clip.notes, *seen.notes, *about["notes"]],
        }
    )


def _known_of(clip: Clip) -> dict[str, Any]:
    """What a record says of a clip that the file itself does not hold."""
    return {
        "clip": clip.name,
        "path": as_utf8(str(clip.path.absolute())),
        "prompt": clip.prompt,
        "prompt_id": clip.prompt_id,
        "seed": clip.seed,
        "kind": clip.kind,
        "clip_notes": list(clip.notes),
    }


def _reused(record: Record, clip: Clip) -> Record:
    """The record of a file that was scored before, with what is known about the clip now."""
    others = record["notes"][len(record.get("clip_notes", ())) :]
    notes = [*clip.notes, *(note for note in others if note not in clip.notes)]
    return record | _known_of(clip) | {"notes": notes}


def _reason(error: Exception) -> str:
    """The error in words; those of the system carry a number and a path besides."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
