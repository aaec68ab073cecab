"""Metrics on videos and scenes, held-out evaluation, comparison with intervals, timing, and the report."""

from vggrpo.evaluation.catalogue import METRICS, Metric, describe
from vggrpo.evaluation.comparison import Agreement, Comparison, compare, reward_agreement, rows_of, summary
from vggrpo.evaluation.diversity import clip_thumbnail, group_diversity
from vggrpo.evaluation.heldout import (
    HeldOutEvaluator,
    HeldOutSettings,
    KeyFrameTeacher,
    SampledBlock,
    camera_motion_amount,
)
from vggrpo.evaluation.intervals import (
    Interval,
    auc,
    bootstrap_mean,
    paired_difference,
    spearman,
    spearman_interval,
)
from vggrpo.evaluation.optical_flow import dis_flow, dominant_motion, flow_jerk, flow_magnitude
from vggrpo.evaluation.pixels import brightness, contrast, pixel_statistics, saturation, sharpness
from vggrpo.evaluation.records import EvaluationRecords
from vggrpo.evaluation.timing import RewardTiming, Timing, time_reward_paths

__all__ = [
    "METRICS",
    "Agreement",
    "Comparison",
    "EvaluationRecords",
    "HeldOutEvaluator",
    "HeldOutSettings",
    "Interval",
    "KeyFrameTeacher",
    "Metric",
    "RewardTiming",
    "SampledBlock",
    "Timing",
    "auc",
    "bootstrap_mean",
    "brightness",
    "camera_motion_amount",
    "clip_thumbnail",
    "compare",
    "contrast",
    "describe",
    "dis_flow",
    "dominant_motion",
    "flow_jerk",
    "flow_magnitude",
    "group_diversity",
    "paired_difference",
    "pixel_statistics",
    "reward_agreement",
    "rows_of",
    "saturation",
    "sharpness",
    "spearman",
    "spearman_interval",
    "summary",
    "time_reward_paths",
]
