"""What every held-out metric is: label, unit, which way is better, what it says and what it cannot see.

The comparison, the report and docs/metrics.md take their words from here.
"""

from vggrpo.evaluation.catalogue_geometry import GEOMETRY, SCORES
from vggrpo.evaluation.catalogue_judges import VBENCH, VIDEO_REWARD
from vggrpo.evaluation.metric import Metric

_CHECKS = {
    metric.name: metric
    for metric in (
        Metric(
            "flow_jerk",
            "Flow jerk",
            "",
            "lower",
            3,
            "Jerk of the picture's dominant optical flow over its speed: how unsteady the camera looks.",
            "Pure zoom and roll about the image centre; anything covering less than half of the frame.",
        ),
        Metric(
            "flow_magnitude",
            "Motion amount (flow)",
            "px/frame",
            "watch",
            2,
            "Mean length of the optical flow: how much moves at all, shake included.",
            "Whether the camera or an object moves; whether a fall means less shake or less travel.",
        ),
        Metric(
            "flow_drift",
            "Motion amount without shake (flow)",
            "px/frame",
            "watch",
            2,
            "Mean length of the time-averaged optical flow: how much moves on the whole. A fall means "
            "steadiness bought by standing still.",
            "Whether the camera or an object moves; slow motion to and fro.",
        ),
        Metric(
            "camera_path",
            "Camera path",
            "depths",
            "watch",
            3,
            "Length of the teacher's camera path over the scene's median depth: how far the camera travels.",
            "Whether the length is travel, shake or the teacher's pose noise.",
        ),
        Metric(
            "camera_extent",
            "Camera extent",
            "depths",
            "watch",
            3,
            "Largest distance between two of the teacher's camera centres over the scene's median depth: how "
            "far the camera gets, shake or not. A fall means steadiness bought by standing still.",
            "Turning on the spot; the way between the two places.",
        ),
        Metric(
            "camera_turn",
            "Camera turn",
            "deg",
            "watch",
            1,
            "Sum of the teacher's rotation angles from view to view: how far the camera turns.",
            "Whether the sum is turning, shake or the teacher's pose noise.",
        ),
        Metric(
            "brightness",
            "Brightness",
            "",
            "watch",
            3,
            "Mean luma of the pixels, 0 to 1.",
            "Where in the picture it changed.",
        ),
        Metric(
            "contrast",
            "Contrast",
            "",
            "watch",
            3,
            "Standard deviation of the luma within a frame. A fall means washed-out pictures.",
            "Whether the contrast is in objects or in noise.",
        ),
        Metric(
            "saturation",
            "Saturation",
            "",
            "watch",
            3,
            "Mean HSV saturation, 0 to 1. A fall means washed-out colours.",
            "Hue; dark pixels count as much as bright ones.",
        ),
        Metric(
            "sharpness",
            "Sharpness",
            "",
            "watch",
            0,
            "Variance of the Laplacian of the luma (0 to 255). A fall means blur.",
            "Noise and flicker count as sharp; comparable at one resolution only.",
        ),
        Metric(
            "object_presence",
            "Object presence",
            "",
            "watch",
            3,
            "Share of the pixels whose colour hardly occurs at the border of the frame. A fall means that "
            "objects vanish.",
            "Objects in a colour of their surroundings; which objects, and whether they are whole.",
        ),
        Metric(
            "diversity",
            "Diversity within a prompt",
            "",
            "watch",
            4,
            "Mean pairwise difference of the clips of one prompt, as small thumbnails. A fall means "
            "collapse.",
            "Differences in detail; whether the clips are good.",
        ),
    )
}

FIDELITY = {
    metric.name: metric
    for metric in (
        Metric(
            "fidelity/depth_abs_rel",
            "LGM depth error",
            "",
            "lower",
            3,
            "Mean relative difference of the LGM's depth (latents) from the teacher's (decoded frames).",
            "Whether the teacher itself is right.",
        ),
        Metric(
            "fidelity/rotation_deg",
            "LGM rotation error",
            "deg",
            "lower",
            2,
            "Mean angle between the LGM's and the teacher's camera rotations, relative to the first view.",
            "Whether the teacher itself is right.",
        ),
        Metric(
            "fidelity/translation_error",
            "LGM translation error",
            "paths",
            "lower",
            3,
            "Mean distance of the LGM's camera centres from the teacher's, over the length of its path.",
            "Whether the teacher itself is right; large for cameras that hardly move.",
        ),
    )
}
"""Errors of the latent geometry model on the evaluated clips: they grow where a policy leaves its domain."""

VIDEOS = {
    metric.name: metric
    for metric in (
        Metric(
            "epipolar_error",
            "Epipolar error (published)",
            "px",
            "lower",
            2,
            "Mean Sampson distance of all SIFT matches to the fundamental matrix fitted to all of them, over "
            "pairs 15 frames apart: as published by Epipolar-DPO.",
            "A few wrong matches dominate it; moving objects count as errors; near 0 where little moves.",
        ),
        Metric(
            "epipolar_inliers",
            "Epipolar inliers (published)",
            "",
            "higher",
            3,
            "Share of those matches within 5 pixels of their epipolar lines.",
            "As the error; 1 where nothing moves.",
        ),
        Metric(
            "epipolar_pairs",
            "Epipolar pairs (published)",
            "",
            "watch",
            1,
            "Pairs of frames that entered the published error; a pair with fewer than 20 matches does not.",
            "Why pairs are missing.",
        ),
        Metric(
            "epipolar_robust_error",
            "Epipolar error (robust)",
            "px",
            "lower",
            3,
            "Median Sampson distance of the SIFT matches to the fundamental matrix by MAGSAC++, mean over "
            "adjacent frames that move.",
            "What holds less than half of the matches; slow drift; a bent world whose adjacent frames fit.",
        ),
        Metric(
            "epipolar_robust_inliers",
            "Epipolar inliers (robust)",
            "",
            "higher",
            3,
            "Share of those matches within 1 pixel of their epipolar lines: falls where things move by "
            "themselves.",
            "Points that move along their epipolar lines.",
        ),
        Metric(
            "epipolar_robust_pairs",
            "Epipolar pairs (robust)",
            "",
            "watch",
            1,
            "Adjacent frames that entered the robust error: with 20 matches or more, which move.",
            "Why pairs are missing.",
        ),
        Metric(
            "change_from_first",
            "Change from the first frame",
            "",
            "watch",
            3,
            "Mean of 1 - SSIM of the frames to the first: how far the picture gets. A fall means standing "
            "still.",
            "Whether the change is camera, objects or flicker; saturates once the pictures share nothing.",
        ),
        Metric(
            "feature_consistency",
            "Feature consistency",
            "",
            "higher",
            3,
            "Mean cosine of gradient descriptors of a pixel and of where the optical flow takes it in the "
            "next frame.",
            "Bending and melting that the flow follows; slow drift; colour; what the flow cannot follow at "
            "all (see the coverage); 1 where nothing moves.",
        ),
        Metric(
            "feature_coverage",
            "Feature coverage",
            "",
            "watch",
            3,
            "Share of pixels with texture that the flow takes to the next frame and back. A fall means that "
            "the consistency is that of fewer pixels.",
            "Whether a pixel is left out for want of texture, by occlusion or as the picture falls apart.",
        ),
        Metric(
            "camera_smoothness",
            "Camera smoothness",
            "",
            "higher",
            3,
            "The camera-motion reward of a geometry model's cameras: 1 moves evenly.",
            "What the geometry model gets wrong; shake faster than its views; 1 where nothing moves (see the "
            "camera path).",
        ),
        Metric(
            "reprojection_error",
            "Reprojection error",
            "depths",
            "lower",
            4,
            "Mean difference of a view's depth from the points of the other views, over the three worst "
            "views, in median depths.",
            "What the geometry model gets wrong in all views alike; surfaces that one view alone sees.",
        ),
        Metric(
            "mvcs",
            "Multi-view consistency (MVCS)",
            "",
            "higher",
            4,
            "exp(-mean squared difference of depths between adjacent views), in median depths.",
            "Occlusions and moving objects count as errors; drift over more than two views; near 1 where "
            "little moves.",
        ),
    )
}
"""Of `vggrpo evaluate`, which also measures the flow and the camera's travel by their metrics above."""

METRICS = _CHECKS | FIDELITY | VIDEOS | SCORES | GEOMETRY | VIDEO_REWARD | VBENCH
"""Every metric with a fixed name."""

SOURCES = {
    "lgm": ("latent", "the latent geometry model on the sampled latents: what the policy was trained on"),
    "teacher": (
        "teacher",
        "the uncut geometry model on the decoded frames: not what the policy was trained on",
    ),
}


def describe(name: str) -> Metric:
    """The metric called `name`: one of METRICS, or "lgm/<reward>" and "teacher/<reward>" for any reward.

    Raises:
        ValueError: if there is no such metric.
    """
    if name in METRICS:
        return METRICS[name]
    source, _, reward = name.partition("/")
    if source not in SOURCES or not reward or "/" in reward:
        known = ", ".join([*METRICS, *(f"{source}/<reward>" for source in SOURCES)])
        raise ValueError(f"metric is {name!r}, expected one of {known}")
    short, words = SOURCES[source]
    title = reward.replace("_", " ").capitalize()
    return Metric(
        name,
        f"{title} reward ({short})",
        "",
        "higher",
        3,
        f"{title} reward by {words}.",
        "What the geometry model itself gets wrong, and motion between its views (one frame in four).",
    )
