"""The finished page: one file without any outside resource."""

from importlib import resources
from pathlib import Path

import yaml

from vggrpo import __version__
from vggrpo.evaluation.report.data import ReportData
from vggrpo.evaluation.report.figures import glance
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.sections import SECTIONS
from vggrpo.evaluation.report.words import abstract, headline, warnings
from vggrpo.io import write_text

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src "
    "data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Content security policy: the browser itself refuses any request."""


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
    contents = {name: section.build(data) for name, section in SECTIONS.items()}
    silent = [name for name, content in contents.items() if content is None and name not in data.left_out]
    if silent:
        raise ValueError(
            f"the report has no data for {', '.join(silent)}; give the data, or the reason for its absence "
            "in left_out"
        )
    shown = {name: content for name, content in contents.items() if content is not None}
    absent = [name for name, content in contents.items() if content is None]
    body = element(
        "body",
        _navigation(data.title, {name: SECTIONS[name].short for name in shown} | {"settings": "Settings"}),
        element(
            "main",
            _header(data),
            *(_section(name, SECTIONS[name].title, content) for name, content in shown.items()),
            _section("settings", "Settings and machine", _settings(data, absent)),
            _footer(data),
        ),
        element("script", Markup(_asset("report.js"))),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", data.title),
        element("style", Markup(_asset("report.css"))),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _navigation(title: str, titles: dict[str, str]) -> Markup:
    links = [element("a", text, href=f"#{name}") for name, text in titles.items()]
    home = element("a", title, href="#top", class_="home")
    return element("nav", element("div", home, *links), aria_label="Contents")


def _header(data: ReportData) -> Markup:
    f = data.facts
    facts = [f"{f.base_model} + {f.geometry_model}", data.created, f"vggrpo {__version__}"]
    parts: list[Markup | None] = [
        element("p", "VGGRPO run report", class_="kicker"),
        element("h1", data.title),
        element("p", *(element("span", fact) for fact in facts), class_="byline"),
        element("p", abstract(data), class_="abstract"),
    ]
    if data.comparisons:
        parts += [
            element("h2", headline(data.comparisons), class_="headline"),
            glance(data.comparisons),
            *(element("p", text, class_="warning") for text in warnings(data.comparisons)),
        ]
    parts += [element("p", text, class_="remark") for text in data.remarks]
    return element("header", *parts, id="top")


def _section(name: str, title: str, content: Markup) -> Markup:
    return element("section", element("h2", title), content, id=name)


def _settings(data: ReportData, absent: list[str]) -> Markup:
    machine = [join(element("dt", key), element("dd", value)) for key, value in data.machine.items()]
    settings = yaml.safe_dump(_plain(data.settings), sort_keys=False, allow_unicode=True, width=100)
    parts = [
        element("h3", "Command"),
        element("div", element("pre", data.command, id="command"), _copy_button("command"), class_="code"),
        element("h3", "Machine"),
        element("dl", *machine),
        element("h3", "Settings"),
        element(
            "details",
            element("summary", "All resolved settings"),
            element("div", element("pre", settings, id="yaml"), _copy_button("yaml"), class_="code"),
        ),
    ]
    if absent:
        rows = [
            join(element("dt", SECTIONS[name].title), element("dd", data.left_out[name])) for name in absent
        ]
        parts += [element("h3", "Left out of this report"), element("dl", *rows, class_="absent")]
    return join(*parts)


def _copy_button(target: str) -> Markup:
    return element("button", "Copy", type="button", class_="copy", data_copy=target)


def _footer(data: ReportData) -> Markup:
    return element(
        "footer",
        f"Written by vggrpo {__version__}, {data.created}. The method: \u201cVGGRPO\u201d, arXiv 2603.26599. "
        "This file is complete: it loads nothing.",
    )


def _asset(name: str) -> str:
    return resources.files("vggrpo.evaluation.report").joinpath("assets", name).read_text("utf-8")


def _plain(value: object) -> object:
    """Mappings, sequences and leaves that YAML knows; anything else as its text."""
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
