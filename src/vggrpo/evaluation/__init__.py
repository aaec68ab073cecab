"""Metrics on videos and scenes, held-out evaluation, comparison with intervals, timing, and the report."""

from vggrpo.evaluation.alarms import Alarm, Assessment, Evaluated, Fault, assess
from vggrpo.evaluation.catalogue import METRICS, Metric, describe
from vggrpo.evaluation.comparison import (
    Agreement,
    Comparison,
    align_rows,
    compare,
    gap_closed,
    reward_agreement,
    rows_of,
    summary,
    weighted_reward,
)
from vggrpo.evaluation.diversity import clip_thumbnail, group_diversity
from vggrpo.evaluation.flow_epipolar import flow_epipolar_error
from vggrpo.evaluation.frechet import (
    PrincipalComponents,
    clip_features,
    frechet_distance,
    gaussian_frechet,
    place_on_scale,
)
from vggrpo.evaluation.gate import (
    GATE_FILE,
    ClipQuality,
    LGMGate,
    NoisePoint,
    NoiseResponse,
    RankAgreement,
    noise_response,
    rank_agreement,
    steady_shaky_auc,
)
from vggrpo.evaluation.gate_plot import GATE_PLOT, gate_table, plot_gate
from vggrpo.evaluation.heldout import (
    HeldOutEvaluator,
    HeldOutSettings,
    KeyFrameTeacher,
    SampledBlock,
    Sampler,
    camera_motion_amount,
)
from vggrpo.evaluation.intervals import (
    Interval,
    auc,
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_statistic,
    paired_difference,
    spearman,
    spearman_interval,
    unpaired_difference,
)
from vggrpo.evaluation.latents import LatentProfile, latent_moments, latent_shift
from vggrpo.evaluation.objects import object_presence
from vggrpo.evaluation.optical_flow import dis_flow, dominant_motion, flow_drift, flow_jerk, flow_magnitude
from vggrpo.evaluation.pixels import brightness, contrast, pixel_statistics, saturation, sharpness
from vggrpo.evaluation.records import EvaluationRecords
from vggrpo.evaluation.timing import RewardTiming, Timing, time_reward_paths

__all__ = [
    "GATE_FILE",
    "GATE_PLOT",
    "METRICS",
    "Agreement",
    "Alarm",
    "Assessment",
    "ClipQuality",
    "Comparison",
    "Evaluated",
    "EvaluationRecords",
    "Fault",
    "HeldOutEvaluator",
    "HeldOutSettings",
    "Interval",
    "KeyFrameTeacher",
    "LGMGate",
    "LatentProfile",
    "Metric",
    "NoisePoint",
    "NoiseResponse",
    "PrincipalComponents",
    "RankAgreement",
    "RewardTiming",
    "SampledBlock",
    "Sampler",
    "Timing",
    "align_rows",
    "assess",
    "auc",
    "bootstrap_mean",
    "bootstrap_ratio",
    "bootstrap_statistic",
    "brightness",
    "camera_motion_amount",
    "clip_features",
    "clip_thumbnail",
    "compare",
    "contrast",
    "describe",
    "dis_flow",
    "dominant_motion",
    "flow_drift",
    "flow_epipolar_error",
    "flow_jerk",
    "flow_magnitude",
    "frechet_distance",
    "gap_closed",
    "gate_table",
    "gaussian_frechet",
    "group_diversity",
    "latent_moments",
    "latent_shift",
    "noise_response",
    "object_presence",
    "paired_difference",
    "pixel_statistics",
    "place_on_scale",
    "plot_gate",
    "rank_agreement",
    "reward_agreement",
    "rows_of",
    "saturation",
    "sharpness",
    "spearman",
    "spearman_interval",
    "steady_shaky_auc",
    "summary",
    "time_reward_paths",
    "unpaired_difference",
    "weighted_reward",
]
