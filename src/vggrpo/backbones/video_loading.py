"""Video backbones by name."""

from pathlib import Path

import torch

from vggrpo.backbones.base import VideoBackbone
from vggrpo.backbones.ltx import LTXBackbone
from vggrpo.backbones.pipelines import PipelineBackbone, Precision
from vggrpo.backbones.pipelines.source import PipelineSource
from vggrpo.backbones.wan import WanBackbone
from vggrpo.config.base import EfficiencySettings
from vggrpo.config.models import resolve_model

FAMILIES: dict[str, type[PipelineBackbone]] = {
    family.pipeline_class.__name__: family for family in (WanBackbone, LTXBackbone)
}
"""By the `_class_name` of model_index.json."""


def load_video_backbone(
    name: str | Path,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    weight_dtype: torch.dtype | None = None,
    gradient_checkpointing: bool = False,
    flow_shift: float | None = None,
    efficiency: EfficiencySettings | None = None,
) -> VideoBackbone:
    """The video model called `name`: a name or alias of models.yaml, a pipeline's folder, "owner/name", or
    "owner/name@revision".

    The pipeline's model_index.json says which family it is. Loads no weights yet; the arguments are those of
    `PipelineBackbone`.

    Raises:
        ConfigError: if there is no such model, with the nearest known name.
        FileNotFoundError, CorruptFileError: if its configuration files are missing or damaged.
        ValueError: if it is no text-to-video pipeline of a known family, or arguments contradict each other.
    """
    source = resolve_model(name, "video")
    location = source.folder or source.repository
    assert location is not None
    pipeline = PipelineSource(location).index.get("_class_name")
    if pipeline not in FAMILIES:
        raise ValueError(
            f"{name} is a {pipeline}, but the video models that can be used are {' and '.join(FAMILIES)}"
        )
    return FAMILIES[pipeline](
        location,
        device=device,
        precision=precision,
        weight_dtype=weight_dtype,
        gradient_checkpointing=gradient_checkpointing,
        flow_shift=flow_shift,
        efficiency=efficiency,
    )
