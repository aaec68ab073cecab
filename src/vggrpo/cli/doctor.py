"""`vggrpo doctor`: what this machine has of what the commands need."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from vggrpo.config.base import Settings

WIDTH_OF_FILES = 160
"""Columns of a table that is not shown on a terminal."""


class DoctorSettings(Settings):
    """Looks at Python, packages, GPUs, memory, disks, Hugging Face and weights, with a remedy for each fault.

    Exits with 1 if something is broken that every command needs, or if the weights do not fit.
    """

    weights: tuple[str, ...] = Field(
        (),
        description="report only on these weights: names, repositories, folders of video pipelines "
        "(WanPipeline, LTXPipeline), or files or folders of a geometry model",
    )
    folder: Path = Field(Path("."), description="where runs would be written; its disk is looked at")
    hub: bool = Field(True, description="call Hugging Face")


def main(argv: Sequence[str]) -> int:
    """Runs the command; 1 if something is wrong."""
    import tyro

    settings = tyro.cli(DoctorSettings, prog="vggrpo doctor", args=list(argv))
    if settings.weights:
        return _report(settings.weights)

    from rich.console import Console

    from vggrpo.training.doctor import examine, findings_table

    findings = list(examine(settings.folder, settings.hub))
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILES)
    console.print(findings_table(findings))
    errors = sum(finding.status == "error" for finding in findings)
    print(f"{errors} things are wrong" if errors else "nothing is wrong; notes concern some commands only")
    return 1 if errors else 0


def _report(names: Sequence[str]) -> int:
    from vggrpo.training.doctor import report_weights

    fits = True
    for name in names:
        for report in report_weights(name):
            print("\n".join(report.lines()))
            fits = fits and report.fits
    return 0 if fits else 1
