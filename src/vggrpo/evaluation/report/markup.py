"""HTML and SVG from Python in which text is escaped unless it is markup already."""

from html import escape


class Markup(str):
    """A string that is HTML or SVG; any other string is text and gets escaped."""

    __slots__ = ()


VOID = frozenset({"meta", "input", "br", "hr", "img"})
"""HTML elements that have no end tag."""


def element(tag: str, /, *children: str | Markup | None, **attributes: object) -> Markup:
    """One element. `class_` becomes `class`, other underscores become hyphens; None leaves an attribute or
    child out.

    True makes a bare attribute, False leaves it out.
    """
    rendered = "".join(_attribute(key, value) for key, value in attributes.items())
    if tag in VOID:
        return Markup(f"<{tag}{rendered}>")
    return Markup(f"<{tag}{rendered}>{join(*children)}</{tag}>")


def join(*children: str | Markup | None, separator: str = "") -> Markup:
    """Children one after the other, text escaped."""
    parts = [child if isinstance(child, Markup) else escape(child) for child in children if child is not None]
    return Markup(separator.join(parts))


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-") if key != "viewBox" else key
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{escape(text, quote=True)}"'
