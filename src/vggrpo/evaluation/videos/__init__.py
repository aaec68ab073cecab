"""Metrics over video files, whoever made them: `vggrpo evaluate`."""

from vggrpo.evaluation.videos.base import (
    Clip,
    FileMetric,
    FrameMetric,
    Measured,
    MetricSet,
    ModelMetric,
    NotRun,
    Video,
    VideoMetric,
)
from vggrpo.evaluation.videos.discovery import find_clips, pair_clips
from vggrpo.evaluation.videos.dynamics import DynamicsMetric
from vggrpo.evaluation.videos.engine import EngineSettings, measure_clips
from vggrpo.evaluation.videos.epipolar import EpipolarMetric
from vggrpo.evaluation.videos.features import FeatureConsistencyMetric
from vggrpo.evaluation.videos.folder import FolderEvaluation, evaluate_folder
from vggrpo.evaluation.videos.geometry import GeometryMetric, multi_view_consistency, open_geometry
from vggrpo.evaluation.videos.results import ClipResults
from vggrpo.evaluation.videos.table import summary_table

__all__ = [
    "Clip",
    "ClipResults",
    "DynamicsMetric",
    "EngineSettings",
    "EpipolarMetric",
    "FeatureConsistencyMetric",
    "FileMetric",
    "FolderEvaluation",
    "FrameMetric",
    "GeometryMetric",
    "Measured",
    "MetricSet",
    "ModelMetric",
    "NotRun",
    "Video",
    "VideoMetric",
    "evaluate_folder",
    "find_clips",
    "measure_clips",
    "multi_view_consistency",
    "open_geometry",
    "pair_clips",
    "summary_table",
]
