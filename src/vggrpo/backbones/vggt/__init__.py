"""The VGGT geometry model: feed-forward 3D reconstruction of T views of a static scene."""

from vggrpo.backbones.vggt.adapter import scene_from_prediction
from vggrpo.backbones.vggt.config import VGGTConfig
from vggrpo.backbones.vggt.model import VGGT
from vggrpo.backbones.vggt.network import VGGTNetwork
from vggrpo.backbones.vggt.prediction import VGGTPrediction

__all__ = ["VGGT", "VGGTConfig", "VGGTNetwork", "VGGTPrediction", "scene_from_prediction"]
