"""LTX-Video text-to-video models: any diffusers LTXPipeline folder or repository."""

from vggrpo.backbones.ltx.backbone import LTXBackbone

__all__ = ["LTXBackbone"]
