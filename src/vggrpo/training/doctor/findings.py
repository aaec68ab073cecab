"""All that the doctor looks at, in one table."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from vggrpo.training.doctor.finding import Finding
from vggrpo.training.doctor.machine import devices, disk, hub, memory
from vggrpo.training.doctor.software import packages, python, torchvision, wan_classes
from vggrpo.training.doctor.vbench import vbench
from vggrpo.training.doctor.weights import models

__all__ = ["Finding", "examine", "findings_table"]

STYLES = {"ok": "green", "note": "yellow", "error": "bold red"}


def examine(folder: Path, ask_hub: bool = True) -> Iterator[Finding]:
    """Every finding in turn, each made when it is asked for.

    Args:
        folder: where runs would be written; its disk is looked at.
        ask_hub: whether Hugging Face is called.
    """
    yield python()
    yield packages()
    yield torchvision()
    wan = wan_classes()
    yield wan
    yield from devices()
    yield memory()
    yield from disk(folder)
    if ask_hub:
        yield hub()
    # Where the classes of Wan cannot be imported, what they would load cannot be looked at.
    if wan.status == "ok":
        yield from models("video")
    yield from models("geometry")
    yield vbench()


def findings_table(findings: Sequence[Finding]) -> Table:
    """A line a finding, with its remedy."""
    table = Table(show_lines=False)
    for column in ("", "", "found", "remedy"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        status = f"[{STYLES[finding.status]}]{finding.status}[/]"
        table.add_row(finding.subject, status, escape(finding.found), escape(finding.remedy))
    return table
