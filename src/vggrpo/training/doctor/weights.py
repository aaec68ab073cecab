"""Which models' weights are here, and whether they are complete."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from vggrpo.backbones import load_geometry_backbone, weight_report
from vggrpo.config import VggrpoError, resolve_model
from vggrpo.config.models import ModelKind, ModelSource, model_table
from vggrpo.training.doctor.finding import Finding


class Report(Protocol):
    """What `report_weights` returns."""

    @property
    def fits(self) -> bool:
        """Whether the weights load."""

    def lines(self) -> list[str]:
        """The report for people."""


def report_weights(name: str | Path) -> Report:
    """What becomes of each tensor of a video pipeline's folder, or of a published geometry model.

    Raises:
        ConfigError: if there is no such place, or it holds no model that is known here.
        FileNotFoundError, CorruptFileError: if a file is missing or damaged.
    """
    folder = Path(name).expanduser()
    if (folder / "model_index.json").is_file():
        from vggrpo.backbones.pipelines.report import pipeline_report

        return pipeline_report(folder)
    return weight_report(name)


def models(*kinds: ModelKind) -> Iterator[Finding]:
    """Every model of models.yaml of these kinds."""
    for kind in kinds:
        for name in getattr(model_table(), kind):
            yield _model(f"{kind} model {name}", resolve_model(name, kind))


def _model(subject: str, source: ModelSource) -> Finding:
    place = source.folder or _cached(source)
    if place is None:
        download = f"hf download {source.hub}" + (f" {source.file}" if source.file else "")
        return Finding(subject, "note", "not here", f"downloaded when first used; beforehand: {download}")
    remedy = "reinstall vggrpo" if source.folder else f"get a fresh copy: hf download {source.hub}"
    try:
        found, fits = _state(source, place)
    except (VggrpoError, FileNotFoundError) as error:
        return Finding(subject, "error", str(error), remedy)
    return Finding(subject, "ok" if fits else "error", found, "" if fits else remedy)


def _state(source: ModelSource, place: Path) -> tuple[str, bool]:
    """What is at `place`, and whether it loads."""
    if source.kind == "video":
        # Imported late: the doctor must also work where diffusers cannot be imported.
        from vggrpo.backbones.pipelines.report import pipeline_report

        pipeline = pipeline_report(place)
        if pipeline.fits:
            return f"complete, {pipeline.num_elements:,} parameters", True
        problems = [f"{part}: {keys.problems}" for part, keys in pipeline.parts.items() if not keys.fits]
        return "; ".join(problems), False
    if source.file is None:
        model = load_geometry_backbone(place)
        return f"complete, {sum(p.numel() for p in model.parameters()):,} parameters", True
    report = weight_report(place)
    if report.fits:
        return f"complete, {report.keys.num_used_elements:,} parameters are used", True
    return report.keys.problems, False


def _cached(source: ModelSource) -> Path | None:
    """The downloaded snapshot of a repository, or the weight file in it; None if there is none."""
    assert source.hub is not None
    try:
        if source.file is not None:
            return Path(hf_hub_download(source.hub, source.file, local_files_only=True))
        return Path(snapshot_download(source.hub, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
