"""Frozen foundation models behind two interfaces: `VideoBackbone` and `GeometryBackbone`.

Everything is imported when first asked for, so that using a geometry model does not import diffusers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggrpo.backbones.base import GeometryBackbone, LatentSpec, StitchPoint, VideoBackbone
    from vggrpo.backbones.geometry_loading import load_geometry_backbone
    from vggrpo.backbones.images import resize_frames
    from vggrpo.backbones.video_loading import load_video_backbone
    from vggrpo.backbones.weights import WeightReport, weight_report

__all__ = [
    "GeometryBackbone",
    "LatentSpec",
    "StitchPoint",
    "VideoBackbone",
    "WeightReport",
    "load_geometry_backbone",
    "load_video_backbone",
    "resize_frames",
    "weight_report",
]

_MODULES = {
    "GeometryBackbone": "base",
    "LatentSpec": "base",
    "StitchPoint": "base",
    "VideoBackbone": "base",
    "WeightReport": "weights",
    "load_geometry_backbone": "geometry_loading",
    "load_video_backbone": "video_loading",
    "resize_frames": "images",
    "weight_report": "weights",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
