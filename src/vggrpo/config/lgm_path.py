"""The type of a setting that says where a latent geometry model is."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer

from vggrpo.config.models import canonical_name, model_table, resolve_model


def lgm_folder(path: Path) -> Path:
    """The folder of a latent geometry model that ships with the package, if `path` is its name; else `path`.

    Raises:
        ConfigError: if the package lacks the folder.
    """
    key = canonical_name(str(path), "lgm")
    return path if key is None else resolve_model(key, "lgm").folder or path


def _as_written(path: Path) -> str:
    """The name that stands for `path` in a settings file, the same on every machine; else the path."""
    names = (key for key in model_table().lgm if lgm_folder(Path(key)) == path)
    return next(names, str(path))


LGMPath = Annotated[Path, AfterValidator(lgm_folder), PlainSerializer(_as_written)]
"""A folder that `vggrpo train-lgm` wrote, or the name of one that ships with the package."""
