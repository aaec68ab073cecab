"""What the video models of diffusers share: their folders, parts on demand, text, guidance and LoRA."""

from vggrpo.backbones.pipelines.backbone import PipelineBackbone, Precision
from vggrpo.backbones.pipelines.fuse import fuse_loras
from vggrpo.backbones.pipelines.lora import LORA_FILE, LoraTargets, lora_file
from vggrpo.backbones.pipelines.source import fingerprint
from vggrpo.backbones.pipelines.tokens import load_tokenizer

__all__ = [
    "LORA_FILE",
    "LoraTargets",
    "PipelineBackbone",
    "Precision",
    "fingerprint",
    "fuse_loras",
    "load_tokenizer",
    "lora_file",
]
