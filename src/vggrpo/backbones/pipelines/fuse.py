"""LoRAs merged into a pipeline's own weights: a folder that needs no LoRA any more."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vggrpo.backbones.pipelines.backbone import PipelineBackbone
from vggrpo.backbones.pipelines.lora import lora_file
from vggrpo.backbones.pipelines.source import weight_files
from vggrpo.config.errors import CorruptFileError
from vggrpo.io import atomic_folder, file_sha256, write_json

RECORD_FILE = "fused_loras.json"
WEIGHT, BIAS = "weight", "bias"


def fuse_loras(backbone: PipelineBackbone, loras: Sequence[tuple[Path, float]], output: Path) -> None:
    """Writes the pipeline's folder anew with the effect of LoRAs, (folder, scale) each, in its transformer.

    Everything else is copied as it is: files, their division, and the type of every weight. A sum is made in
    float32 and rounded once, to the type of the weight. What was merged is recorded in fused_loras.json.

    Raises:
        FileExistsError: if `output` exists.
        FileNotFoundError, CorruptFileError: if a LoRA or a part of the pipeline is missing or damaged, or
            does not fit.
        DiskFullError: if the space runs out.
    """
    record = [
        {"file": str(file), "sha256": file_sha256(file), "scale": scale}
        for file, scale in ((lora_file(Path(folder)), scale) for folder, scale in loras)
    ]
    backbone.load_loras(loras)
    layers = _changed_layers(backbone.transformer)
    source = backbone.source
    parts = [part for part, value in source.index.items() if isinstance(value, list) and value[0] is not None]
    with atomic_folder(output) as folder:
        write_json(folder / "model_index.json", source.index)
        for part in parts:
            changed = weight_files(source.folder(part)) if part == "transformer" else []
            left_out = shutil.ignore_patterns(*(file.name for file in changed))
            shutil.copytree(source.folder(part), folder / part, ignore=left_out)
            for file in changed:
                _write_changed(file, folder / part / file.name, layers)
        if layers:
            raise CorruptFileError(
                f"{source.name} has no weight for {next(iter(layers))}, which the LoRAs change"
            )
        write_json(folder / RECORD_FILE, {"base_model": source.name, "loras": record})


def _changed_layers(transformer: nn.Module) -> dict[str, LoraLayer]:
    """The layers that LoRAs change, by the names of the base model's parameters that they change."""
    layers: dict[str, LoraLayer] = {}
    for name, layer in transformer.named_modules():
        if isinstance(layer, LoraLayer):
            layers[f"{name}.{WEIGHT}"] = layer
            if any(up.bias is not None for up in layer.lora_B.values()):
                layers[f"{name}.{BIAS}"] = layer
    return layers


@torch.no_grad()
def _change(layer: LoraLayer, parameter: str) -> Tensor:
    """What the active LoRAs add to a layer's weight or bias, float32."""
    adapters = [adapter for adapter in layer.active_adapters if adapter in layer.lora_B]
    if parameter == WEIGHT:
        return torch.stack([layer.get_delta_weight(adapter).float() for adapter in adapters]).sum(dim=0)
    scaled = [(layer.scaling[adapter], layer.lora_B[adapter].bias) for adapter in adapters]
    return torch.stack([scale * bias.float() for scale, bias in scaled if bias is not None]).sum(dim=0)


def _write_changed(file: Path, target: Path, layers: dict[str, LoraLayer]) -> None:
    """Writes a weight file with the changes of its weights, which are then taken out of `layers`."""
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    for name in tensors.keys() & layers.keys():
        weight = tensors[name]
        change = _change(layers.pop(name), name.rpartition(".")[2])
        tensors[name] = (weight.float() + change.cpu()).to(weight.dtype)
    save_file(tensors, target, metadata)
