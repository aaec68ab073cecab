"""Prompts, real and generated videos, and what is cached on disk: text embeddings and training clips."""

from vggrpo.data.camera_paths import read_camera_path
from vggrpo.data.clips import ClipCache
from vggrpo.data.embeddings import TextEmbeddingCache
from vggrpo.data.generation import SamplingSettings, VideoOrder, order_videos, unfinished
from vggrpo.data.making import Steering, make_videos
from vggrpo.data.prompt import Prompt
from vggrpo.data.prompt_sets import load_prompt_set, load_vbench_prompts, prompt_set_names
from vggrpo.data.prompts import load_prompts, read_prompts
from vggrpo.data.videos import VideoClip, VideoFolder

__all__ = [
    "ClipCache",
    "Prompt",
    "SamplingSettings",
    "Steering",
    "TextEmbeddingCache",
    "VideoClip",
    "VideoFolder",
    "VideoOrder",
    "load_prompt_set",
    "load_prompts",
    "load_vbench_prompts",
    "make_videos",
    "order_videos",
    "prompt_set_names",
    "read_camera_path",
    "read_prompts",
    "unfinished",
]
