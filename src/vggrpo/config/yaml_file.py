"""Reading YAML settings so that every later complaint can name the line."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vggrpo.config.errors import ConfigError

SettingPath = tuple[str | int, ...]
"""Where a value stands: ("loop", "steps"), or ("weights", 0) in a list."""


@dataclass(frozen=True)
class YamlFile:
    """The content of a YAML settings file."""

    path: Path
    values: dict[str, Any]
    lines: dict[SettingPath, int]
    """The line (from 1) of each key or list item."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: PyYAML reads 1e-4 (without a dot) as a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path | str) -> YamlFile:
    """Reads a YAML file whose top level is a mapping (an empty file is an empty one).

    Raises:
        ConfigError: if the file is missing, no YAML, no mapping, or repeats a key; names the line.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file in UTF-8 ({error.reason})") from error
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return YamlFile(path, {}, {})
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path} must be a mapping of settings (name: value) at its top level")
        lines: dict[SettingPath, int] = {}
        repeated: list[str] = []
        _collect_lines(root, (), lines, repeated)
        if repeated:
            raise ConfigError(
                f"{path} sets the same name twice:" + "".join(f"\n  {item}" for item in repeated)
            )
        values = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line} is not valid YAML: {error.problem}") from error
    finally:
        loader.dispose()
    return YamlFile(path, values, lines)


def _collect_lines(
    node: yaml.Node, prefix: SettingPath, lines: dict[SettingPath, int], repeated: list[str]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place, line = (*prefix, key.value), key.start_mark.line + 1
            if place in lines:
                repeated.append(f"lines {lines[place]} and {line}: {format_path(place)}")
            lines[place] = line
            _collect_lines(value, place, lines, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*prefix, index)] = value.start_mark.line + 1
            _collect_lines(value, (*prefix, index), lines, repeated)


def format_path(place: SettingPath) -> str:
    """("loop", "weights", 0) as "loop.weights[0]"."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
