"""Geometry networks in our own folders: config.json and model.safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from vggrpo.backbones.network_config import NetworkConfig
from vggrpo.config.errors import CorruptFileError
from vggrpo.io import load_tensors, save_tensors, write_json

CONFIG_FILE = "config.json"
WEIGHT_FILE = "model.safetensors"

ConfigT = TypeVar("ConfigT", bound=NetworkConfig)


def write_model(
    folder: Path | str, config: NetworkConfig, dropped_before: str | None, tensors: Mapping[str, Tensor]
) -> None:
    """Writes config.json and model.safetensors, each atomically."""
    folder = Path(folder)
    save_tensors(folder / WEIGHT_FILE, tensors)
    header = {"model_type": config.model_type, "dropped_before": dropped_before}
    write_json(folder / CONFIG_FILE, header | config.to_dict())


def read_config(folder: Path, config_type: type[ConfigT]) -> tuple[ConfigT, str | None]:
    """The dimensions of a model in our folder, and the stitch point before which it has been cut off.

    Raises:
        FileNotFoundError: if there is no config.json.
        CorruptFileError: if it is not that network's.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: {folder} holds no geometry model")
    try:
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict) or values.pop("model_type", None) != config_type.model_type:
            raise ValueError(f'it does not say "model_type": "{config_type.model_type}"')
        dropped_before = values.pop("dropped_before", None)
        config = config_type.from_dict(values)
        if dropped_before not in (None, *config.stitch_points, *config.deep_stitch_points):
            raise ValueError(f"dropped_before is {dropped_before!r}, but there is no such stitch point")
        return config, dropped_before
    except ValueError as error:
        raise CorruptFileError(f"{path} does not describe {config_type.title} model: {error}") from error


def load_weights(folder: Path, network: nn.Module) -> None:
    """Puts model.safetensors into a network (on the meta device or not), every tensor accounted for.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is damaged or does not fit the network.
    """
    path = folder / WEIGHT_FILE
    tensors = load_tensors(path)
    try:
        assign_weights(network, tensors)
    except RuntimeError as error:
        raise CorruptFileError(f"{path} does not fit the {CONFIG_FILE} beside it: {error}") from error


def assign_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Makes the tensors the network's weights, wherever these are now, in the types of its own.

    Each gets aligned memory of its own: views into a mapped file can change results in the last digit.

    Raises:
        RuntimeError: if names or shapes do not match.
    """
    own = network.state_dict()
    copies = {
        name: tensor.to(own[name].dtype, copy=True) if name in own else tensor
        for name, tensor in tensors.items()
    }
    network.load_state_dict(copies, assign=True)
