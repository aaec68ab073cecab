"""Any4D models on disk: our folders (config.json, model.safetensors) and upstream's checkpoint file."""

import argparse
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import torch
from torch import Tensor

from vggrpo.backbones.any4d.config import Any4DConfig
from vggrpo.backbones.any4d.network import Any4DNetwork
from vggrpo.config.errors import CorruptFileError
from vggrpo.io import load_tensors, save_tensors, write_json

MODEL_TYPE = "any4d"
CONFIG_FILE = "config.json"
WEIGHT_FILE = "model.safetensors"


def write_model(
    folder: Path | str, config: Any4DConfig, dropped_before: str | None, tensors: Mapping[str, Tensor]
) -> None:
    """Writes config.json and model.safetensors, each atomically."""
    folder = Path(folder)
    save_tensors(folder / WEIGHT_FILE, tensors)
    header = {"model_type": MODEL_TYPE, "dropped_before": dropped_before}
    write_json(folder / CONFIG_FILE, header | config.to_dict())


def read_config(folder: Path) -> tuple[Any4DConfig, str | None]:
    """The dimensions of a model in our folder, and the stitch point before which it has been cut off.

    Raises:
        FileNotFoundError: if there is no config.json.
        CorruptFileError: if it is not an Any4D's.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: {folder} holds no geometry model")
    try:
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict) or values.pop("model_type", None) != MODEL_TYPE:
            raise ValueError(f'it does not say "model_type": "{MODEL_TYPE}"')
        dropped_before = values.pop("dropped_before", None)
        config = Any4DConfig.from_dict(values)
        if dropped_before not in (None, *config.stitch_points):
            raise ValueError(f"dropped_before is {dropped_before!r}, but there is no such stitch point")
        return config, dropped_before
    except ValueError as error:
        raise CorruptFileError(f"{path} does not describe an Any4D model: {error}") from error


def load_weights(folder: Path, network: Any4DNetwork) -> None:
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


def assign_weights(network: Any4DNetwork, tensors: Mapping[str, Tensor]) -> None:
    """Makes the tensors the network's weights, wherever these are now.

    Each gets aligned memory of its own: views into a mapped file can change results in the last digit.

    Raises:
        RuntimeError: if names or shapes do not match.
    """
    network.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)


def read_upstream(path: Path) -> Mapping[str, Tensor]:
    """Upstream's state dict from a .safetensors file, or from a .pth file whose "model" entry holds it.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it cannot be read, or holds more than tensors and plain values.
    """
    if path.suffix == ".safetensors":
        return load_tensors(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        # Training scripts store their argparse settings beside the weights; nothing else may be unpickled.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, BadZipFile) as error:
        raise CorruptFileError(
            f"{path} cannot be read as a PyTorch checkpoint of plain tensors ({error}); get a fresh copy"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CorruptFileError(f"{path} holds no state dict of tensors, at its top or under 'model'")
    return state
