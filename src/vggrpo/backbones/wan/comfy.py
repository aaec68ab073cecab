"""A Wan LoRA under the names that ComfyUI knows, which are those of Wan's own code."""

import re
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from vggrpo.backbones.pipelines.lora import ADAPTER
from vggrpo.io import save_tensors

PREFIX = "diffusion_model."
WAN_NAMES = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
"""Layers of a block: diffusers' names to Wan's."""
BLOCK = re.compile(r"blocks\.(?P<number>\d+)\.(?P<layer>.+)")


def export_comfy_lora(transformer: nn.Module, file: Path) -> Path:
    """Writes the transformer's LoRA for ComfyUI; diffusers and `load_lora` read the file too.

    Each layer has its factors and its own `alpha`, which carries the scale that the LoRA was loaded with:
    what a layer adds is alpha / rank * B A. There is no other metadata, since a reader that knows both
    would count alpha twice.

    Raises:
        ValueError: if there is no LoRA, one with a layer that has no name in Wan's code, with biases, or of a
            scale that is not positive, at which diffusers' reader hangs.
    """
    tensors: dict[str, Tensor] = {}
    for name, layer in transformer.named_modules():
        if isinstance(layer, LoraLayer):
            tensors |= _layer_tensors(name, layer)
    if not tensors:
        raise ValueError("the model has no LoRA layers: call add_lora or load_lora first")
    save_tensors(file, tensors)
    return file


def _layer_tensors(name: str, layer: LoraLayer) -> dict[str, Tensor]:
    block = BLOCK.fullmatch(name)
    if block is None or block["layer"] not in WAN_NAMES:
        raise ValueError(f"the LoRA changes {name}, for which ComfyUI has no name that is known here")
    down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    if up.bias is not None:
        raise ValueError(f"the LoRA has a bias at {name}, which this file cannot hold; merge it instead")
    alpha = layer.scaling[ADAPTER] * layer.r[ADAPTER]
    if not alpha > 0:
        raise ValueError(f"alpha times the LoRA's scale is {alpha:g} at {name}, but must be positive")
    own = f"{PREFIX}blocks.{block['number']}.{WAN_NAMES[block['layer']]}"
    return {
        f"{own}.lora_A.weight": down.weight,
        f"{own}.lora_B.weight": up.weight,
        f"{own}.alpha": torch.tensor(float(alpha)),
    }
