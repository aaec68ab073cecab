"""Rewards of videos and latents with all their parts: `vggrpo score`."""

from vggrpo.evaluation.scoring.clips import find_scored_clips, read_latents
from vggrpo.evaluation.scoring.readers import LatentReader, PixelReader, SceneView, open_reader
from vggrpo.evaluation.scoring.record import score_names, score_scene
from vggrpo.evaluation.scoring.run import Scoring, score_clips
from vggrpo.evaluation.scoring.table import score_table

__all__ = [
    "LatentReader",
    "PixelReader",
    "SceneView",
    "Scoring",
    "find_scored_clips",
    "open_reader",
    "read_latents",
    "score_clips",
    "score_names",
    "score_scene",
    "score_table",
]
