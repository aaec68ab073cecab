"""What a video pipeline's folder holds, compared with what its parts need; no weight is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from vggrpo.backbones.checkpoint import KeyMap, KeyReport
from vggrpo.backbones.pipelines.backbone import PipelineBackbone
from vggrpo.backbones.pipelines.source import PipelineSource, read_json, weight_files
from vggrpo.backbones.pipelines.tokens import load_tokenizer
from vggrpo.backbones.video_loading import FAMILIES
from vggrpo.config.errors import ConfigError

SHARED_EMBEDDING = ("encoder.embed_tokens.weight", "shared.weight")
"""Two names of the text encoder's one embedding; files hold either or both."""


@dataclass(frozen=True)
class PipelineReport:
    """A pipeline's folder, and for each part with weights what becomes of each of its tensors."""

    path: Path
    pipeline: str
    """Its class in diffusers."""
    parts: Mapping[str, KeyReport]
    absent: tuple[str, ...] = ()
    """Parts of a repository that are not on this machine yet."""

    @property
    def fits(self) -> bool:
        """Whether every part that is here loads, with nothing unexplained."""
        return all(keys.fits for keys in self.parts.values())

    @property
    def num_elements(self) -> int:
        """Numbers in all parts."""
        return sum(keys.num_used_elements for keys in self.parts.values())

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [f"{self.path}: {self.pipeline}"]
        for part, keys in self.parts.items():
            lines += [f"  {part}", *(f"    {line}" for line in keys.lines())]
        lines += [f"  {part} is not here yet; it is downloaded when first used" for part in self.absent]
        return lines


def pipeline_report(folder: Path, partial: bool = False) -> PipelineReport:
    """Compares names and shapes in the weight files of a pipeline with its configurations.

    `partial`: the folder is what has been downloaded of a repository so far, and may lack parts.

    Raises:
        FileNotFoundError: if a part, one of its files, or the tokenizer is missing, and it is not `partial`.
        CorruptFileError: if a file is damaged.
        ConfigError: if the pipeline is of a class that is not known here.
    """
    source = PipelineSource(folder)
    pipeline = source.index.get("_class_name")
    if pipeline not in FAMILIES:
        raise ConfigError(f"{folder} is a {pipeline}; known here are {', '.join(FAMILIES)}")
    parts: dict[str, KeyReport] = {}
    absent: list[str] = []
    for part, build in {"tokenizer": None, **_builders(FAMILIES[pipeline])}.items():
        try:
            if build is None:
                load_tokenizer(source.folder(part))
            else:
                parts[part] = _part_report(build, source.folder(part))
        except FileNotFoundError:
            if not partial:
                raise
            absent.append(part)
    return PipelineReport(folder, pipeline, parts, tuple(absent))


def _builders(family: type[PipelineBackbone]) -> Mapping[str, Callable[[dict[str, Any]], nn.Module]]:
    """The parts with weights, by their folders, from their configurations."""
    encoder = family.text_encoder_class
    return {
        "transformer": family.transformer_class.from_config,
        "vae": family.vae_class.from_config,
        "text_encoder": lambda config: encoder(encoder.config_class(**config)),
    }


def _part_report(build: Callable[[dict[str, Any]], nn.Module], folder: Path) -> KeyReport:
    files = weight_files(folder)
    with torch.device("meta"):
        module = build(read_json(folder / "config.json"))
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
