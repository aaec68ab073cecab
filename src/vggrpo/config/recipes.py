"""Recipes: YAML files with the settings of a run, shipped in the package or written by users.

A recipe holds all settings, or says `extends: NAME` and holds only those in which it differs from the recipe
of that name: a packaged one, or a file beside it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vggrpo.config.errors import ConfigError
from vggrpo.config.validation import SettingsT, nearest, validate
from vggrpo.config.yaml_file import YamlFile, read_yaml

RECIPE_FOLDER = Path(__file__).resolve().parent.parent / "recipes"
EXTENDS = "extends"
"""The key under which a recipe names the one that it changes."""


def recipe_names() -> list[str]:
    """Names of the packaged recipes, "<model>/<stage>"."""
    return sorted(
        path.relative_to(RECIPE_FOLDER).with_suffix("").as_posix() for path in RECIPE_FOLDER.glob("*/*.yaml")
    )


def recipe_path(name: Path | str) -> Path:
    """The file of a packaged recipe ("micro/train"), or the file that `name` is.

    Raises:
        ConfigError: if there is neither.
    """
    packaged = RECIPE_FOLDER / f"{name}.yaml"
    if str(name) in recipe_names():
        return packaged
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(f"there is no recipe file {path}")
    raise ConfigError(
        f"{name} is neither a recipe nor a file; {nearest(str(name), recipe_names())} "
        "(or give a path to a YAML file)"
    )


def read_recipe(name: Path | str) -> YamlFile:
    """The raw content of a recipe, by name or path, on top of the one that it extends.

    Line numbers are those of the recipe's own file.

    Raises:
        ConfigError: if there is no such recipe, or it extends none or itself.
    """
    return _read_extended(recipe_path(name), ())


def _read_extended(path: Path, extending: tuple[Path, ...]) -> YamlFile:
    if path in extending:
        raise ConfigError(f"the recipe {path} extends itself, by way of {', '.join(map(str, extending))}")
    file = read_yaml(path)
    if EXTENDS not in file.values:
        return file
    own = dict(file.values)
    base = own.pop(EXTENDS)
    if not isinstance(base, str):
        raise ConfigError(f"{path}, line {file.lines[(EXTENDS,)]}: extends is {base!r}; expected one recipe")
    beside = path.parent / base
    base_file = _read_extended(recipe_path(beside if beside.is_file() else base), (*extending, path))
    return YamlFile(path, merge(base_file.values, own), file.lines)


def load_recipe(
    name: Path | str, model: type[SettingsT], overrides: Mapping[str, Any] | None = None
) -> SettingsT:
    """The settings of a recipe.

    Args:
        name: of a packaged recipe ("micro/train"), or a YAML file.
        model: the settings class.
        overrides: values that replace the recipe's, nested or by dotted path ({"loop.steps": 10}).

    Raises:
        ConfigError: naming every problem by its path.
    """
    file = read_recipe(name)
    changes = nest_dotted(overrides or {})
    values = merge(file.values, changes)
    source = f"{file.path} with overrides" if changes else str(file.path)
    return validate(model, values, source, file.lines)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `changes` on top, mapping by mapping."""
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def nest_dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """{"loop.steps": 10} as {"loop": {"steps": 10}}."""
    nested: dict[str, Any] = {}
    for name, value in overrides.items():
        branch = value
        for part in reversed(name.split(".")):
            branch = {part: branch}
        nested = merge(nested, branch)
    return nested
