"""Settings of a command: a recipe's values, changed by flags that are made from the settings class."""

from collections.abc import Mapping, Sequence
from dataclasses import field, make_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field, create_model

from vggrpo.config import ConfigError, Settings, read_recipe, recipe_names, validate
from vggrpo.config.models import known_model
from vggrpo.config.validation import SettingsT, nested_settings
from vggrpo.config.yaml_file import SettingPath
from vggrpo.io.runs import CONFIG_NAME

DEFAULT_MODEL = "micro"


def parse_with_recipe(
    model: type[SettingsT], stage: str, argv: Sequence[str], command: str | None = None
) -> SettingsT:
    """The settings that a command line asks for.

    The values come from the recipe that `--recipe` names; else, with `--resume`, from the run in `--output`;
    else from the packaged recipe of the `--base-model` for this stage ("wan2.2-5b/train"), or from its
    variant for the `--geometry-model` ("wan2.2-5b/train-vggt") if there is one. Flags replace them; `--help`
    shows each setting with its value in the recipe.

    Args:
        model: the settings class; nested settings have dotted flags, and dashes and underscores are alike.
        stage: second half of the packaged recipes' names.
        argv: the words after the command.
        command: the command's name, if it is not the stage's.

    Raises:
        ConfigError: if the recipe does not exist, or the resulting settings are wrong; names every problem.
        SystemExit: 0 after `--help`, 2 for unknown or malformed flags.
    """
    recipe = _flag_value(argv, "recipe") or _resumed_config(argv) or _packaged_recipe(model, stage, argv)
    file = read_recipe(recipe)
    lenient = _without_requirements(model)
    defaults = _values(validate(lenient, file.values, str(file.path), file.lines))
    flags: Any = tyro.cli(
        _flags_class(model, defaults, {"recipe": recipe}),
        prog=f"vggrpo {command or stage}",
        description=model.__doc__,
        args=list(argv),
    )
    values = _flag_values(flags, model)
    lines = {place: line for place, line in file.lines.items() if _at(values, place) == _at(defaults, place)}
    return validate(model, values, f"the command line on top of {file.path}", lines)


def _resumed_config(argv: Sequence[str]) -> str | None:
    """The settings of the run that is to be resumed, so that its flags need not be repeated."""
    output = _flag_value(argv, "output")
    if "--resume" not in argv or output is None:
        return None
    config = Path(output) / CONFIG_NAME
    return str(config) if config.is_file() else None


def _packaged_recipe(model: type[Settings], stage: str, argv: Sequence[str]) -> str:
    """The packaged recipe of the base model, where the settings have one, else of the default model; its
    variant for the geometry model that is asked for, if there is one."""
    given = _flag_value(argv, "base-model") if "base_model" in model.model_fields else None
    family = known_model(given, "video") if given else DEFAULT_MODEL
    geometry = _flag_value(argv, "geometry-model") if "geometry_model" in model.model_fields else None
    variant = known_model(geometry, "geometry") if geometry else None
    for name in (f"{family}/{stage}-{variant}", f"{family}/{stage}"):
        if name in recipe_names():
            return name
    packaged = [known for known in recipe_names() if known.endswith(f"/{stage}")]
    raise ConfigError(
        f"there is no packaged {stage} recipe for the base model {given or DEFAULT_MODEL}; "
        f"give one with --recipe NAME|FILE (packaged: {', '.join(packaged) or 'none'})"
    )


def _flag_value(argv: Sequence[str], flag: str) -> str | None:
    """The last value of `--flag VALUE` or `--flag=VALUE`, with dashes or underscores."""
    value = None
    for index, word in enumerate(argv):
        name, equals, attached = word.partition("=")
        if name.startswith("--") and name[2:].replace("_", "-") == flag:
            value = attached if equals else next(iter(argv[index + 1 :]), None)
    return value


def _without_requirements(model: type[Settings]) -> type[Settings]:
    """The same fields with the same checks, none required, and no checks across fields.

    With it a recipe that leaves some settings to the flags can be checked by itself.
    """
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        nested = nested_settings(info.annotation)
        annotation: Any
        default: Any = tyro.MISSING if info.is_required() else info.get_default(call_default_factory=True)
        if nested is None:
            annotation = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        else:
            annotation = _without_requirements(nested)
            default = annotation.model_validate({} if info.is_required() else default.model_dump())
        fields[name] = (annotation, Field(default, validate_default=False))
    return create_model(model.__name__, __base__=Settings, **fields)


def _values(settings: Settings) -> dict[str, Any]:
    """Field values by name, nested settings as dictionaries."""
    return {name: _values(value) if isinstance(value, Settings) else value for name, value in settings}


def _flags_class(model: type[Settings], values: Mapping[str, Any], extra: Mapping[str, str]) -> type:
    """A dataclass without checks whose fields are the flags; the checks come later, all at once."""
    fields: list[tuple[str, Any, Any]] = [
        (name, Annotated[str, tyro.conf.arg(help="recipe name or YAML file that the flags change")], value)
        for name, value in extra.items()
    ]
    for name, info in model.model_fields.items():
        nested, value = nested_settings(info.annotation), values[name]
        annotation: Any = info.annotation
        if nested is not None:
            annotation = _flags_class(nested, value, {})
            default = field(default_factory=annotation)
        else:
            annotation = Annotated[annotation, *info.metadata, tyro.conf.arg(help=info.description)]
            default = field(default_factory=partial(_identity, value))
        fields.append((name, annotation, default))
    made = make_dataclass(model.__name__, fields, kw_only=True)
    made.__doc__ = model.__doc__
    return made


def _flag_values(flags: Any, model: type[Settings]) -> dict[str, Any]:
    """The dictionary of a flags object, recursively."""
    values = {}
    for name, info in model.model_fields.items():
        nested, value = nested_settings(info.annotation), getattr(flags, name)
        values[name] = value if nested is None else _flag_values(value, nested)
    return values


def _identity(value: Any) -> Any:
    return value


def _at(values: Any, place: SettingPath) -> Any:
    """The value at `place`; None where there is none."""
    for part in place:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values
