"""Video backbones by name."""

from pathlib import Path

import torch

from vggrpo.backbones.base import VideoBackbone
from vggrpo.backbones.wan import Precision, WanBackbone
from vggrpo.config.base import EfficiencySettings
from vggrpo.config.models import resolve_model


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

    Loads no weights yet; the arguments are those of `WanBackbone`.

    Raises:
        ConfigError: if there is no such model, with the nearest known name.
        FileNotFoundError, CorruptFileError: if its configuration files are missing or damaged.
        ValueError: if it is no Wan text-to-video pipeline, or arguments contradict each other.
    """
    source = resolve_model(name, "video")
    location = source.folder or source.repository
    assert location is not None
    return WanBackbone(
        location,
        device=device,
        precision=precision,
        weight_dtype=weight_dtype,
        gradient_checkpointing=gradient_checkpointing,
        flow_shift=flow_shift,
        efficiency=efficiency,
    )
