"""Which models' weights are here, and whether they are complete."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from vggrpo.backbones import weight_report
from vggrpo.backbones.geometry_loading import weight_names
from vggrpo.config import ConfigError, VggrpoError, resolve_model
from vggrpo.config.models import ModelKind, ModelSource, canonical_name, model_names, model_table
from vggrpo.config.validation import nearest
from vggrpo.training.doctor.finding import Finding

KINDS: tuple[ModelKind, ...] = ("video", "geometry")
PIPELINE_INDEX = "model_index.json"


class Report(Protocol):
    """What `report_weights` yields."""

    @property
    def fits(self) -> bool:
        """Whether the weights that are here load."""

    def lines(self) -> list[str]:
        """The report for people."""


@dataclass(frozen=True)
class NotHere:
    """The report on a model whose weights are yet to be downloaded, with which nothing is wrong."""

    source: ModelSource
    fits: bool = True

    def lines(self) -> list[str]:
        """The report for people."""
        return [f"{self.source.name}, a {self.source.kind} model: not here; {_to_come(self.source)}"]


def report_weights(name: str | Path) -> Iterator[Report]:
    """What becomes of each tensor of the models called `name`, of which there may be two ("micro": a video
    and a geometry model): a name, a repository, a folder or a file. Nothing is downloaded.

    Raises:
        ConfigError: if there is no such place, or it holds no model that is known here.
        FileNotFoundError, CorruptFileError: if a file is missing or damaged.
    """
    for source in _sources(str(name)):
        place = _place(source)
        if place is None:
            yield NotHere(source)
        elif source.kind == "video":
            # Imported late: the doctor must also work where diffusers cannot be imported.
            from vggrpo.backbones.pipelines.report import pipeline_report

            yield pipeline_report(place, partial=source.hub is not None)
        else:
            yield weight_report(place)


def models(*kinds: ModelKind) -> Iterator[Finding]:
    """Every model of models.yaml of these kinds."""
    for kind in kinds:
        for name in getattr(model_table(), kind):
            yield _model(f"{kind} model {name}", resolve_model(name, kind))


def _model(subject: str, source: ModelSource) -> Finding:
    place = _place(source)
    if place is None:
        return Finding(subject, "note", "not here", _to_come(source))
    if source.hub is not None:
        remedy = f"get a fresh copy: {_download_command(source)}"
    else:
        remedy = "reinstall vggrpo"
    try:
        if source.kind == "geometry":
            keys = weight_report(place).keys
            if not keys.fits:
                return Finding(subject, "error", keys.problems, remedy)
            return Finding(subject, "ok", f"complete, {keys.num_used_elements:,} parameters are used")
        return _pipeline(subject, source, place, remedy)
    except (VggrpoError, FileNotFoundError) as error:
        return Finding(subject, "error", str(error), remedy)


def _pipeline(subject: str, source: ModelSource, place: Path, remedy: str) -> Finding:
    from vggrpo.backbones.pipelines.report import pipeline_report

    report = pipeline_report(place, partial=source.hub is not None)
    if not report.fits:
        problems = [f"{part}: {keys.problems}" for part, keys in report.parts.items() if not keys.fits]
        return Finding(subject, "error", "; ".join(problems), remedy)
    if report.absent:
        here = ", ".join(report.parts) or "none of its weights"
        return Finding(subject, "note", f"{here} here, {', '.join(report.absent)} not yet", _to_come(source))
    return Finding(subject, "ok", f"complete, {report.num_elements:,} parameters")


def _sources(name: str) -> list[ModelSource]:
    """The models called `name`: of a table's name each kind, else the one that is at that place."""
    named = [resolve_model(name, kind) for kind in KINDS if canonical_name(name, kind) is not None]
    if named:
        return named
    try:
        # Whatever a video model can be called, a geometry model can; only it can be a file.
        geometry = resolve_model(name, "geometry")
    except ConfigError as error:
        names = [known for kind in KINDS for known in model_names(kind)]
        raise ConfigError(
            f"{name} is neither a model, nor a file or folder, nor a repository (owner/name); "
            + nearest(name, list(dict.fromkeys(names)))
        ) from error
    if geometry.file is not None:
        return [geometry]
    video = resolve_model(name, "video")
    folder = video.folder or _snapshot(video)
    if video.network is not None or (folder is not None and (folder / PIPELINE_INDEX).is_file()):
        return [video]
    return [geometry]


def _place(source: ModelSource) -> Path | None:
    """The pipeline's folder, or the geometry model's file or folder; None if it has not been downloaded."""
    if source.folder is not None:
        return source.folder / source.file if source.file is not None else source.folder
    if source.file is not None:
        assert source.hub is not None
        try:
            return Path(
                hf_hub_download(source.hub, source.file, revision=source.revision, local_files_only=True)
            )
        except LocalEntryNotFoundError:
            return None
    folder = _snapshot(source)
    needed = [PIPELINE_INDEX] if source.kind == "video" else weight_names()
    return folder if folder is not None and any((folder / name).is_file() for name in needed) else None


def _snapshot(source: ModelSource) -> Path | None:
    """What has been downloaded of a repository, if anything."""
    assert source.hub is not None
    try:
        return Path(snapshot_download(source.hub, revision=source.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _to_come(source: ModelSource) -> str:
    return f"downloaded when first used; beforehand: {_download_command(source)}"


def _download_command(source: ModelSource) -> str:
    words = ["hf download", source.hub, source.file]
    if source.revision is not None:
        words.append(f"--revision {source.revision}")
    return " ".join(word for word in words if word is not None)
