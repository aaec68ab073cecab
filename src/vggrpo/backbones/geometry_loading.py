"""Geometry backbones by name, folder or repository."""

import json
from pathlib import Path

from vggrpo.backbones.any4d import Any4D
from vggrpo.backbones.base import GeometryBackbone
from vggrpo.config.errors import ConfigError, CorruptFileError
from vggrpo.config.models import ModelSource, resolve_model

NETWORKS = {"any4d": Any4D}
"""By the `model_type` of a folder's config.json and the `network` of models.yaml."""


def load_geometry_backbone(name_or_folder: str | Path) -> GeometryBackbone:
    """The geometry model of that name ("micro", "any4d"), folder or repository, frozen and on the CPU.

    Published weights are downloaded to huggingface_hub's cache when first used.

    Raises:
        ConfigError: if the name is unknown, or no network here reads its weights.
        FileNotFoundError: if the folder holds no model, or the repository cannot be fetched.
        CorruptFileError: if the model's files are damaged.
    """
    source = resolve_model(name_or_folder, "geometry")
    if source.file is not None:
        return _network(source.network, source).from_upstream(_download(source, source.file))
    if source.folder is not None:
        folder = source.folder
    else:
        folder = _download(source, "config.json").parent
        _download(source, "model.safetensors")
    return _network(_model_type(folder), source).from_pretrained(folder)


def _network(name: str | None, source: ModelSource) -> type[Any4D]:
    if name not in NETWORKS:
        raise ConfigError(
            f"the geometry model {source.name} is of type {name!r}, for which there is no network here; "
            f"there are {', '.join(NETWORKS)}"
        )
    return NETWORKS[name]


def _model_type(folder: Path) -> str | None:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: {folder} holds no geometry model")
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CorruptFileError(
            f"{path} is not valid JSON ({error}); get a fresh copy of the model"
        ) from error
    return config.get("model_type") if isinstance(config, dict) else None


def _download(source: ModelSource, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    assert source.hub is not None
    try:
        return Path(hf_hub_download(source.hub, file))
    except (HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(
            f"{file} of the Hugging Face repository {source.hub} cannot be fetched ({type(error).__name__}): "
            "check the network and the access rights, or give the folder of a local copy"
        ) from error
