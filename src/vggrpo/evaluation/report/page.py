"""The finished page: one file without any outside resource."""

from pathlib import Path

from vggrpo import __version__
from vggrpo.evaluation.report.data import ReportData
from vggrpo.evaluation.report.figures import glance
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.sections import SECTIONS
from vggrpo.evaluation.report.shell import (
    code_block,
    footer,
    render_page,
    section,
    settings_block,
    title_block,
)
from vggrpo.evaluation.report.words import abstract, headline, warnings
from vggrpo.io import write_text


def write_report(data: ReportData, path: Path | str) -> Path:
    """Writes the report as one self-contained HTML file (videos embedded), atomically, and returns its path.

    Raises:
        ValueError: if a section has neither data nor a reason in `left_out`, or `left_out` names no section.
    """
    path = Path(path)
    write_text(path, render_report(data))
    return path


def render_report(data: ReportData) -> str:
    """The page as text."""
    unknown = sorted(set(data.left_out) - set(SECTIONS))
    if unknown:
        raise ValueError(f"left_out names {', '.join(unknown)}; the sections are {', '.join(SECTIONS)}")
    contents = {name: part.build(data) for name, part in SECTIONS.items()}
    silent = [name for name, content in contents.items() if content is None and name not in data.left_out]
    if silent:
        raise ValueError(
            f"the report has no data for {', '.join(silent)}; give the data, or the reason for its absence "
            "in left_out"
        )
    shown = {name: content for name, content in contents.items() if content is not None}
    absent = [name for name, content in contents.items() if content is None]
    titles = {name: SECTIONS[name].short for name in shown} | {"settings": "Settings"}
    return render_page(
        data.title,
        titles,
        _header(data),
        *(section(name, SECTIONS[name].title, content) for name, content in shown.items()),
        section("settings", "Settings and machine", _settings(data, absent)),
        footer(data.created),
    )


def _header(data: ReportData) -> Markup:
    f = data.facts
    facts = [f"{f.base_model} + {f.geometry_model}", data.created, f"vggrpo {__version__}"]
    parts = [title_block("VGGRPO run report", data.title, facts, abstract(data))]
    if data.comparisons:
        parts += [
            element("h2", headline(data.comparisons), class_="headline"),
            glance(data.comparisons),
            *(element("p", text, class_="warning") for text in warnings(data.comparisons)),
        ]
    parts += [element("p", text, class_="remark") for text in data.remarks]
    return element("header", *parts, id="top")


def _settings(data: ReportData, absent: list[str]) -> Markup:
    machine = [join(element("dt", key), element("dd", value)) for key, value in data.machine.items()]
    parts = [
        element("h3", "Command"),
        code_block(data.command, "command"),
        element("h3", "Machine"),
        element("dl", *machine),
        element("h3", "Settings"),
        settings_block(data.settings),
    ]
    if absent:
        rows = [
            join(element("dt", SECTIONS[name].title), element("dd", data.left_out[name])) for name in absent
        ]
        parts += [element("h3", "Left out of this report"), element("dl", *rows, class_="absent")]
    return join(*parts)
