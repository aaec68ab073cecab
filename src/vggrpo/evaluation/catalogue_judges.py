"""The descriptions of learned judges' scores: VideoReward, and the dimensions of VBench."""

from vggrpo.evaluation.metric import Metric

VIDEO_REWARD = {
    metric.name: metric
    for metric in (
        Metric(
            "videoreward_vq",
            "VideoReward: visual quality",
            "",
            "higher",
            3,
            "What VideoReward, trained on people's preferences, thinks of single frames; 0 is the authors' "
            "mean, 1 a standard deviation more.",
            "The world between the frames: it sees 2 a second. Taste of the people who were asked.",
        ),
        Metric(
            "videoreward_mq",
            "VideoReward: motion quality",
            "",
            "higher",
            3,
            "What VideoReward thinks of motion: stable, natural, and enough of it.",
            "Shake faster than its 2 frames a second; geometry as such.",
        ),
        Metric(
            "videoreward_ta",
            "VideoReward: text alignment",
            "",
            "higher",
            3,
            "What VideoReward thinks of how the video shows its prompt.",
            "Clips without a prompt have none.",
        ),
        Metric(
            "videoreward_overall",
            "VideoReward: overall",
            "",
            "higher",
            3,
            "Sum of VideoReward's three scores.",
            "Which of the three changed.",
        ),
    )
}
"""A learned judge; see docs/metrics.md."""

VBENCH = {
    metric.name: metric
    for metric in (
        Metric(
            "vbench_subject_consistency",
            "VBench: subject consistency",
            "",
            "higher",
            4,
            "Mean cosine of DINO features of a frame to the first and to the one before.",
            "Geometry; 1 where nothing moves.",
        ),
        Metric(
            "vbench_background_consistency",
            "VBench: background consistency",
            "",
            "higher",
            4,
            "Mean cosine of CLIP features of a frame to the first and to the one before.",
            "Which part of the picture changed; 1 where nothing moves.",
        ),
        Metric(
            "vbench_aesthetic_quality",
            "VBench: aesthetic quality",
            "",
            "higher",
            4,
            "Mean of the LAION predictor's rating of frames, over 10.",
            "Everything between frames.",
        ),
        Metric(
            "vbench_imaging_quality",
            "VBench: imaging quality",
            "",
            "higher",
            4,
            "Mean of MUSIQ's rating of frames, over 100: noise, blur, exposure.",
            "Everything between frames.",
        ),
        Metric(
            "vbench_motion_smoothness",
            "VBench: motion smoothness",
            "",
            "higher",
            4,
            "How well AMT interpolates every second frame from its neighbours.",
            "Slow shake and drift; 1 where nothing moves.",
        ),
        Metric(
            "vbench_dynamic_degree",
            "VBench: dynamic degree",
            "",
            "watch",
            4,
            "Share of clips in which RAFT's largest flows exceed VBench's threshold often enough.",
            "How much a clip moves: of one clip it is 0 or 1. Whether camera or objects move.",
        ),
        Metric(
            "vbench_temporal_flickering",
            "VBench: temporal flickering",
            "",
            "watch",
            4,
            "1 - mean absolute difference of adjacent frames, over 255: higher flickers less.",
            "Motion counts as flicker: meant for still scenes.",
        ),
    )
}
"""Dimensions of VBench 0.1.5, measured by it."""
