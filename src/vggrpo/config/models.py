"""Model names to places: a name or alias of `recipes/models.yaml`, a path, or a Hugging Face repository."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from vggrpo.config.base import Settings
from vggrpo.config.errors import ConfigError
from vggrpo.config.recipes import RECIPE_FOLDER
from vggrpo.config.validation import nearest, validate
from vggrpo.config.yaml_file import read_yaml

ModelKind = Literal["video", "geometry", "lgm"]

HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
"""A repository "owner/name", or one of its revisions, "owner/name@branch-tag-or-commit"."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model's weights are; exactly one of `folder` and `hub` is set."""

    name: str
    """The name in models.yaml; the folder or repository where it has none there."""
    kind: ModelKind
    folder: Path | None = None
    hub: str | None = None
    revision: str | None = None
    """Of the repository: a branch, tag or commit; None is its main branch."""
    file: str | None = None
    """The weight file inside the folder or repository, where it is not the usual one."""
    network: str | None = None
    """The architecture ("wan", "any4d", "vggt", "lgm"); None if only the files themselves know."""

    @property
    def repository(self) -> str | None:
        """The repository with its revision, "owner/name@revision"; None of a folder."""
        return f"{self.hub}@{self.revision}" if self.revision else self.hub


class ModelEntry(Settings):
    """A model of models.yaml."""

    network: str
    package: str | None = None
    hub: str | None = None
    file: str | None = None
    aliases: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_source(self) -> "ModelEntry":
        if (self.package is None) == (self.hub is None):
            raise ValueError("a model has either package or hub")
        return self


class ModelTable(Settings):
    """The content of models.yaml."""

    video: dict[str, ModelEntry]
    geometry: dict[str, ModelEntry]
    lgm: dict[str, ModelEntry]


@cache
def model_table() -> ModelTable:
    """The packaged models.yaml."""
    file = read_yaml(RECIPE_FOLDER / "models.yaml")
    return validate(ModelTable, file.values, str(file.path), file.lines)


def model_names(kind: ModelKind) -> list[str]:
    """Names and aliases of that kind."""
    entries = getattr(model_table(), kind)
    return [name for key, entry in entries.items() for name in (key, *entry.aliases)]


def canonical_name(name: str, kind: ModelKind) -> str | None:
    """The name in models.yaml of a name or alias, whatever its case; None if it has none there."""
    for key, entry in getattr(model_table(), kind).items():
        if name.lower() in (key, *entry.aliases):
            return str(key)
    return None


def known_model(place: str, kind: ModelKind) -> str | None:
    """The name in models.yaml of a model given as users give it: by name or alias, by its repository, also
    with a revision, or by the path of a copy below a folder that is called as the repository ("VGGT-1B", or
    "models--facebook--VGGT-1B" in the cache). None if it has none there, or only its files know."""
    if (name := canonical_name(place, kind)) is not None:
        return name
    path = Path(place).expanduser()
    repository = None if path.exists() else HUB_ID.fullmatch(place)
    published = {str(key): entry.hub for key, entry in getattr(model_table(), kind).items() if entry.hub}
    if repository:
        return next((key for key, hub in published.items() if hub == repository["id"]), None)
    for key, hub in published.items():
        if {hub.partition("/")[2], f"models--{hub.replace('/', '--')}"} & set(path.parts):
            return key
    return None


def resolve_model(name: str | Path, kind: ModelKind) -> ModelSource:
    """Where the model called `name` is: a known name or alias, a folder, or a repository "owner/name" or
    "owner/name@revision"; of a geometry model also its weight file.

    Nothing is downloaded or opened.

    Raises:
        ConfigError: if `name` is none of these; with the nearest known name.
    """
    key = canonical_name(str(name), kind)
    if key is not None:
        entry: ModelEntry = getattr(model_table(), kind)[key]
        folder = RECIPE_FOLDER.parent / entry.package if entry.package else None
        if folder is not None and not folder.is_dir():
            raise ConfigError(
                f"the {kind} model {key} ships with the package, but {folder} is missing; reinstall"
            )
        return ModelSource(key, kind, folder=folder, hub=entry.hub, file=entry.file, network=entry.network)
    path = Path(name).expanduser()
    if path.is_dir():
        return ModelSource(str(name), kind, folder=path)
    if kind == "geometry" and path.is_file():
        return ModelSource(str(name), kind, folder=path.parent, file=path.name)
    if isinstance(name, str) and (repository := HUB_ID.fullmatch(name)):
        hub = repository["id"]
        known = next((entry for entry in getattr(model_table(), kind).values() if entry.hub == hub), None)
        file, network = (known.file, known.network) if known else (None, None)
        return ModelSource(name, kind, None, hub, repository["revision"], file, network)
    paths = "a folder, nor a file" if kind == "geometry" else "a folder"
    raise ConfigError(
        f"{name} is neither a {kind} model, nor {paths}, nor a repository (owner/name); "
        + nearest(str(name), model_names(kind))
    )
