"""The Any4D geometry model: feed-forward 4D reconstruction of T views."""

from vggrpo.backbones.any4d.adapter import scene_from_prediction
from vggrpo.backbones.any4d.config import Any4DConfig
from vggrpo.backbones.any4d.initialisation import LAST_LAYER_STD, reset_parameters
from vggrpo.backbones.any4d.model import Any4D
from vggrpo.backbones.any4d.network import Any4DNetwork
from vggrpo.backbones.any4d.prediction import Any4DPrediction

__all__ = [
    "LAST_LAYER_STD",
    "Any4D",
    "Any4DConfig",
    "Any4DNetwork",
    "Any4DPrediction",
    "reset_parameters",
    "scene_from_prediction",
]
