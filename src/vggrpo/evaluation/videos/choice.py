"""From settings to the metrics that are to be run, and to the reasons why others are not."""

import torch

from vggrpo.config.evaluate import EvaluateSettings
from vggrpo.evaluation.videos.base import FrameMetric, MetricSet, NotRun, VideoMetric
from vggrpo.evaluation.videos.dynamics import DynamicsMetric
from vggrpo.evaluation.videos.epipolar import EpipolarMetric
from vggrpo.evaluation.videos.features import FeatureConsistencyMetric
from vggrpo.evaluation.videos.geometry import GEOMETRY_VALUES, open_geometry

CLASSICAL: dict[str, type[FrameMetric]] = {
    metric.name: metric for metric in (EpipolarMetric, DynamicsMetric, FeatureConsistencyMetric)
}


def choose_metrics(settings: EvaluateSettings, device: torch.device) -> MetricSet:
    """The metrics that settings ask for; reads the weights of their models.

    Raises:
        ConfigError, FileNotFoundError, CorruptFileError: if a model is not there or damaged.
    """
    # Imported late: both are built on this package, and transformers is heavy.
    from vggrpo.evaluation.vbench import DIMENSIONS, metric_name, open_vbench
    from vggrpo.evaluation.videoreward import VIDEO_REWARD_VALUES, open_video_reward

    metrics: list[VideoMetric] = [CLASSICAL[name]() for name in settings.metrics]
    not_run = [
        NotRun(metric.metrics, f"left out: --metrics has no {name}")
        for name, metric in CLASSICAL.items()
        if name not in settings.metrics
    ]
    if settings.geometry_model is None:
        not_run.append(NotRun(GEOMETRY_VALUES, "no --geometry-model was given"))
    else:
        metrics.append(
            open_geometry(
                settings.geometry_model,
                device,
                stride=settings.geometry_stride,
                views=settings.geometry_views,
                side=settings.geometry_side,
                batch_size=settings.batch_size,
            )
        )
    if settings.video_reward is None:
        not_run.append(NotRun(VIDEO_REWARD_VALUES, "no --video-reward was given"))
    else:
        metrics.append(
            open_video_reward(
                settings.video_reward,
                device,
                base=settings.video_reward_base,
                batch_size=settings.batch_size,
            )
        )
    vbench, vbench_not_run = open_vbench(settings.vbench, device)
    left_out = tuple(metric_name(dimension) for dimension in DIMENSIONS if dimension not in settings.vbench)
    if left_out:
        not_run.append(NotRun(left_out, "left out: --vbench does not name it"))
    return MetricSet((*metrics, *vbench), (*not_run, *vbench_not_run))
