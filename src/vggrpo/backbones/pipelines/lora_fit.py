"""Whether a LoRA fits a video transformer, from the two files alone: nothing of the model is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vggrpo.backbones.pipelines.lora import PREFIX, lora_file, lora_state
from vggrpo.config.errors import ConfigError

REMEDY = "name the base model that it was trained on, or another LoRA"


def check_lora(
    transformer_class: Any, transformer_config: Mapping[str, Any], folder: Path, model: str, pipeline: Any
) -> None:
    """Makes sure that every layer that the LoRA changes is in the model and has the LoRA's size.

    Args:
        transformer_class: diffusers' class of the model's transformer.
        transformer_config: of the model's transformer.
        folder: of the LoRA, or its file.
        model: the model's name, for messages.
        pipeline: the model's pipeline class, which knows the formats.

    Raises:
        FileNotFoundError, CorruptFileError: if the LoRA is missing, damaged or in another format.
        ConfigError: if it is another model's.
    """
    file = lora_file(Path(folder))
    state, _ = lora_state(file, pipeline)
    with torch.device("meta"):
        transformer = transformer_class.from_config(dict(transformer_config))
    layers = {name: module for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    for key, tensor in state.items():
        name, found, _ = key.removeprefix(PREFIX).partition(".lora_")
        if not found or not key.startswith(PREFIX) or not key.endswith(".weight"):
            continue
        if name not in layers:
            raise ConfigError(
                f"{file} is the LoRA of another model than {model}: it changes {name}, which is not there; "
                f"{REMEDY}"
            )
        reads = key.endswith(".lora_A.weight")
        size, expected = (
            (tensor.shape[1], layers[name].in_features)
            if reads
            else (tensor.shape[0], layers[name].out_features)
        )
        if size != expected:
            raise ConfigError(
                f"{file} is the LoRA of another model than {model}: at {name} it has {size} "
                f"{'inputs' if reads else 'outputs'}, but the model {expected}; {REMEDY}"
            )
