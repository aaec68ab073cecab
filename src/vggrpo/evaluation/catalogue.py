"""What every held-out metric is: label, unit, which way is better, what it says and what it cannot see.

The comparison, the report and docs/metrics.md take their words from here.
"""

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "watch"]


@dataclass(frozen=True)
class Metric:
    """The description of one metric."""

    name: str
    label: str
    unit: str
    """Empty where the metric has none."""
    better: Better
    """"watch": neither direction is better in itself, but a large change needs an explanation."""
    decimals: int
    """Digits after the point in tables."""
    meaning: str
    blind_spot: str


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

METRICS = _CHECKS | FIDELITY
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
