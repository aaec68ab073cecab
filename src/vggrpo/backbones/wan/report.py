"""What a Wan pipeline's folder holds, compared with what its parts need; no weight is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors import safe_open
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from vggrpo.backbones.checkpoint import KeyMap, KeyReport
from vggrpo.backbones.wan.source import PipelineSource, read_json, weight_files
from vggrpo.backbones.wan.text import load_tokenizer

SHARED_EMBEDDING = ("encoder.embed_tokens.weight", "shared.weight")
"""Two names of the text encoder's one embedding; files hold either or both."""

BUILDERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "transformer": WanTransformer3DModel.from_config,
    "vae": AutoencoderKLWan.from_config,
    "text_encoder": lambda config: UMT5EncoderModel(UMT5Config(**config)),
}
"""Parts with weights, by their folders."""


@dataclass(frozen=True)
class PipelineReport:
    """A pipeline's folder, and for each part with weights what becomes of each of its tensors."""

    path: Path
    parts: Mapping[str, KeyReport]

    @property
    def fits(self) -> bool:
        """Whether every part loads, with nothing unexplained."""
        return all(keys.fits for keys in self.parts.values())

    @property
    def num_elements(self) -> int:
        """Numbers in all parts."""
        return sum(keys.num_used_elements for keys in self.parts.values())

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [f"{self.path}: WanPipeline"]
        for part, keys in self.parts.items():
            lines += [f"  {part}", *(f"    {line}" for line in keys.lines())]
        return lines


def pipeline_report(folder: Path) -> PipelineReport:
    """Compares names and shapes in the weight files of a pipeline with its configurations.

    Raises:
        FileNotFoundError: if a part, one of its files, or the tokenizer is missing.
        CorruptFileError: if a file is damaged.
    """
    source = PipelineSource(folder)
    load_tokenizer(source.folder("tokenizer"))
    return PipelineReport(folder, {part: _part_report(part, source.folder(part)) for part in BUILDERS})


def _part_report(part: str, folder: Path) -> KeyReport:
    files = weight_files(folder)
    with torch.device("meta"):
        module = BUILDERS[part](read_json(folder / "config.json"))
    own = dict(module.state_dict())
    found = {name: tensor for file in files for name, tensor in _shapes(file).items()}
    if not own.keys().isdisjoint(SHARED_EMBEDDING):
        # The name that is in the files stands for both, as it does when the model is loaded.
        other = SHARED_EMBEDDING[SHARED_EMBEDDING[0] in found]
        for tensors in (own, found):
            tensors.pop(other, None)
    return KeyMap(names={name: name for name in own}, unused=()).compare(found, own)


def _shapes(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without their values."""
    with safe_open(file, framework="pt") as tensors:
        names = tensors.keys()
        return {name: torch.empty(tensors.get_slice(name).get_shape(), device="meta") for name in names}
