"""Prompts, real and generated videos, and what is cached on disk: text embeddings and training clips."""

from vggrpo.data.clips import ClipCache
from vggrpo.data.embeddings import TextEmbeddingCache
from vggrpo.data.generation import SamplingSettings, VideoOrder, make_videos, order_videos, unfinished
from vggrpo.data.prompts import Prompt, load_prompts, read_prompts
from vggrpo.data.videos import VideoClip, VideoFolder

__all__ = [
    "ClipCache",
    "Prompt",
    "SamplingSettings",
    "TextEmbeddingCache",
    "VideoClip",
    "VideoFolder",
    "VideoOrder",
    "load_prompts",
    "make_videos",
    "order_videos",
    "read_prompts",
    "unfinished",
]
