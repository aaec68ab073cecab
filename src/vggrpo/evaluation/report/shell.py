"""What every page has in common: one HTML file without any outside resource, with the same parts and look."""

from collections.abc import Mapping, Sequence
from importlib import resources

import yaml

from vggrpo import __version__
from vggrpo.evaluation.report.markup import Markup, element, join

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src "
    "data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Content security policy: the browser itself refuses any request."""


def render_page(title: str, navigation: Mapping[str, str], *main: Markup) -> str:
    """The whole file as text.

    Args:
        title: of the window; also the navigation's link to the top.
        navigation: the sections' short names by their ids.
        main: the page's parts: a header with the id "top", sections, a footer.
    """
    body = element(
        "body",
        _navigation(title, navigation),
        element("main", *main),
        element("script", Markup(_asset("report.js"))),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(_asset("report.css"))),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def title_block(kicker: str, title: str, facts: Sequence[str], abstract: str) -> Markup:
    """The head of a page: what it is, its title, facts in one line, and a paragraph."""
    return join(
        element("p", kicker, class_="kicker"),
        element("h1", title),
        element("p", *(element("span", fact) for fact in facts), class_="byline"),
        element("p", abstract, class_="abstract"),
    )


def section(name: str, title: str, content: Markup) -> Markup:
    """A section with its heading and id."""
    return element("section", element("h2", title), content, id=name)


def code_block(text: str, name: str) -> Markup:
    """Text as it is, with a button that copies it; `name` is its id."""
    button = element("button", "Copy", type="button", class_="copy", data_copy=name)
    return element("div", element("pre", text, id=name), button, class_="code")


def settings_block(settings: Mapping[str, object], name: str = "yaml", summary: str = "") -> Markup:
    """Nested settings as YAML, folded away."""
    text = yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True, width=100)
    return element("details", element("summary", summary or "All resolved settings"), code_block(text, name))


def footer(created: str) -> Markup:
    """Who wrote the page, and when."""
    return element(
        "footer",
        f"Written by vggrpo {__version__}, {created}. The method: \u201cVGGRPO\u201d, arXiv 2603.26599. "
        "This file is complete: it loads nothing.",
    )


def _navigation(title: str, titles: Mapping[str, str]) -> Markup:
    links = [element("a", text, href=f"#{name}") for name, text in titles.items()]
    home = element("a", title, href="#top", class_="home")
    return element("nav", element("div", home, *links), aria_label="Contents")


def _asset(name: str) -> str:
    return resources.files("vggrpo.evaluation.report").joinpath("assets", name).read_text("utf-8")


def _plain(value: object) -> object:
    """Mappings, sequences and leaves that YAML knows; anything else as its text."""
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
