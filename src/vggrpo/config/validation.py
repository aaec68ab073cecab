"""Raw values to validated settings, with one readable report of everything that is wrong."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vggrpo.config.base import Settings
from vggrpo.config.errors import ConfigError
from vggrpo.config.yaml_file import SettingPath, format_path

SettingsT = TypeVar("SettingsT", bound=Settings)


def validate(
    model: type[SettingsT],
    values: Mapping[str, Any],
    source: str,
    lines: Mapping[SettingPath, int] | None = None,
) -> SettingsT:
    """The settings made of `values`.

    Args:
        model: the settings class.
        values: nested raw values, as from YAML.
        source: where they come from, for the report's first line.
        lines: line numbers by path, where known.

    Raises:
        ConfigError: listing every problem by its path.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = _problems(error, model, values, lines or {})
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise ConfigError(f"{count} in {source}:" + "".join(f"\n  {problem}" for problem in problems))


def nearest(name: str, choices: list[str]) -> str:
    """The end of a sentence about an unknown name: the nearest valid one, or all of them."""
    close = get_close_matches(name.replace("-", "_"), choices, n=1, cutoff=0.6)
    close = close or get_close_matches(name, choices, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"valid names are {', '.join(choices)}"


def nested_settings(annotation: Any) -> type[Settings] | None:
    """The settings class that a field's annotation is, or None if the field is a plain value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None


def _problems(
    error: ValidationError,
    model: type[Settings],
    values: Mapping[str, Any],
    lines: Mapping[SettingPath, int],
) -> list[str]:
    """One sentence a wrong setting, in the order of the file; the alternatives of a union are one problem."""
    reasons: dict[SettingPath, tuple[str, list[str]]] = {}
    for detail in error.errors(include_url=False):
        place = detail["loc"]
        if detail["type"] not in ("missing", "extra_forbidden"):
            place = _existing_part(place, values)
        came, expected = _reason(detail, model)
        alternatives = reasons.setdefault(place, (came, []))[1]
        if expected not in alternatives:
            alternatives.append(expected)
    problems = []
    for place in sorted(reasons, key=lambda place: lines.get(place, len(lines) + 1)):
        line = f"line {lines[place]}: " if place in lines else ""
        name = f"{format_path(place)}: " if place else ""
        problems.append(f"{line}{name}{reasons[place][0]}{', or '.join(reasons[place][1])}")
    return problems


def _existing_part(place: SettingPath, values: Any) -> SettingPath:
    """`place` without the names that pydantic appends for the branches of a union."""
    for depth, part in enumerate(place):
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return place[:depth]
    return place


def _reason(detail: ErrorDetails, model: type[Settings]) -> tuple[str, str]:
    """What came, and what was expected."""
    place = detail["loc"]
    if detail["type"] == "missing":
        field = _model_at(model, place[:-1]).model_fields.get(str(place[-1]))
        return "is required", f" ({field.description})" if field and field.description else ""
    if detail["type"] == "extra_forbidden":
        choices = list(_model_at(model, place[:-1]).model_fields)
        return "unknown setting; ", nearest(str(place[-1]), choices)
    if detail["type"] in ("value_error", "assertion_error"):
        return "", str(detail["ctx"]["error"])
    message = detail["msg"].removeprefix("Input ")
    return f"is {detail['input']!r}; ", f"{message[:1].lower()}{message[1:]}"


def _model_at(model: type[Settings], place: SettingPath) -> type[Settings]:
    """The settings class whose fields stand at `place`."""
    for part in place:
        field = model.model_fields.get(str(part))
        nested = nested_settings(field.annotation) if field else None
        if nested is None:
            break
        model = nested
    return model
