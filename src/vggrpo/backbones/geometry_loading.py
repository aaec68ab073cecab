"""Geometry backbones by name, folder, weight file or repository."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from vggrpo.backbones.any4d import Any4D
from vggrpo.backbones.base import GeometryBackbone
from vggrpo.backbones.checkpoint import read_checkpoint
from vggrpo.backbones.network_backbone import NetworkBackbone
from vggrpo.backbones.storage import CONFIG_FILE, WEIGHT_FILE
from vggrpo.backbones.vggt import VGGT
from vggrpo.config.errors import ConfigError, CorruptFileError
from vggrpo.config.models import ModelSource, model_table, resolve_model

NETWORKS: dict[str, type[NetworkBackbone]] = {
    network.config_type.model_type: network for network in (Any4D, VGGT)
}
"""By the `model_type` of a folder's config.json and the `network` of models.yaml."""


def load_geometry_backbone(name_or_path: str | Path) -> GeometryBackbone:
    """The geometry model of that name ("micro", "any4d", "vggt"), folder, weight file or repository
    ("owner/name", "owner/name@revision"), frozen and on the CPU.

    Folders are ours (config.json beside model.safetensors) or hold a published weight file. Of a published
    file the parameter names tell whose it is; its dimensions are the official ones. Published weights are
    downloaded to huggingface_hub's cache when first used.

    Raises:
        ConfigError: if the name is unknown, or no network here reads its weights.
        FileNotFoundError: if the folder holds no model, or the repository cannot be fetched.
        CorruptFileError: if the model's files are damaged.
    """
    source = resolve_model(name_or_path, "geometry")
    path = locate_weights(source)
    if (own := own_network(source, path.parent)) is not None:
        return own.from_pretrained(path.parent)
    tensors = read_checkpoint(path)
    network = _network(source.network or identify_network(tensors, path), source)
    return network.from_checkpoint(tensors, str(path))


def locate_weights(source: ModelSource) -> Path:
    """The weight file of a geometry model, fetched first if it is in a repository.

    Raises:
        FileNotFoundError: if there is none, or it cannot be fetched.
    """
    if source.folder is not None:
        return source.folder / (source.file or _weight_file(source.folder))
    if source.file is not None:
        return _download(source, [source.file])
    path = _download(source, weight_names())
    if path.name == WEIGHT_FILE:
        # It says what weights of ours are; beside published ones there may be none.
        _download(source, [CONFIG_FILE, WEIGHT_FILE])
    return path


def weight_names() -> list[str]:
    """The names under which weights are looked for in a folder or repository: ours, and the published
    ones."""
    published = [entry.file for entry in model_table().geometry.values() if entry.file is not None]
    return list(dict.fromkeys([WEIGHT_FILE, *published, "model.pt"]))


def own_network(source: ModelSource, folder: Path) -> type[NetworkBackbone] | None:
    """The network of a folder of ours, by its config.json; None if `source` is a published file.

    Raises:
        ConfigError: if there is no network of that type.
        CorruptFileError: if config.json is no JSON.
    """
    if source.file is None:
        model_type = _model_type(folder)
        return None if model_type is None else _network(model_type, source)
    if source.hub is None and source.file == WEIGHT_FILE:
        # What lies beside a file that is named may be another program's.
        return NETWORKS.get(_model_type(folder) or "")
    return None


def identify_network(names: Iterable[str], path: Path) -> str:
    """The model type of the network whose published parameters have these names.

    Raises:
        ConfigError: if they are no known network's.
    """
    names = list(names)
    for model_type, network in NETWORKS.items():
        if any(name.startswith(network.signature) for name in names):
            return model_type
    known = " or ".join(f"{model_type} ({network.signature}*)" for model_type, network in NETWORKS.items())
    raise ConfigError(
        f"{path} holds no network that is known here: none of its {len(names)} tensors is named as in {known}"
    )


def _weight_file(folder: Path) -> str:
    """The name of the weight file in a folder: ours, or one under which a known model is published."""
    names = weight_names()
    found = next((name for name in names if (folder / name).is_file()), None)
    if found is None and not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"there is no file {folder / CONFIG_FILE}: {folder} holds no geometry model, nor one of the "
            f"published files {', '.join(names[1:])}"
        )
    return found or WEIGHT_FILE


def _network(name: str, source: ModelSource) -> type[NetworkBackbone]:
    if name not in NETWORKS:
        raise ConfigError(
            f"the geometry model {source.name} is of type {name!r}, for which there is no network here; "
            f"there are {', '.join(NETWORKS)}"
        )
    return NETWORKS[name]


def _model_type(folder: Path) -> str | None:
    """What the folder's config.json says; None without one, or if it is a published model's own."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CorruptFileError(
            f"{path} is not valid JSON ({error}); get a fresh copy of the model"
        ) from error
    return config.get("model_type") if isinstance(config, dict) else None


def _download(source: ModelSource, files: Sequence[str]) -> Path:
    """The first of `files` that the repository has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    assert source.hub is not None
    for file in files:
        try:
            return Path(hf_hub_download(source.hub, file, revision=source.revision))
        except EntryNotFoundError as error:
            problem: Exception = error
        except (HfHubHTTPError, OSError) as error:
            problem = error
            break
    raise FileNotFoundError(
        f"{' or '.join(files)} of the Hugging Face repository {source.repository} cannot be fetched "
        f"({type(problem).__name__}): check the network and the access rights, or give the folder of a "
        "local copy"
    ) from problem
