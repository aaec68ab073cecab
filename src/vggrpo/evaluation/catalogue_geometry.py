"""The descriptions of the rewards' parts and of errors against exact geometry."""

from vggrpo.evaluation.metric import Metric


def _by_name(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


SCORES = _by_name(
    Metric(
        "camera_motion/e_trans",
        "Camera unsteadiness, translation",
        "",
        "lower",
        3,
        "e_trans of the camera-motion reward: change of the camera's steps over their length.",
        "Shake faster than the views; 0 of a camera that stands still.",
    ),
    Metric(
        "camera_motion/e_rot",
        "Camera unsteadiness, rotation",
        "",
        "lower",
        3,
        "e_rot of the camera-motion reward: change of the camera's turns over their size.",
        "Shake faster than the views; 0 of a camera that stands still.",
    ),
    Metric(
        "camera_motion/translation_speed",
        "Camera speed",
        "depths/view",
        "watch",
        4,
        "Mean step of the camera centre from view to view, in median depths. A fall means standing still.",
        "Turning in place.",
    ),
    Metric(
        "camera_motion/rotation_speed",
        "Camera turning speed",
        "rad/view",
        "watch",
        4,
        "Mean turn of the camera from view to view.",
        "Moving without turning.",
    ),
    Metric(
        "reprojection/reprojection_error",
        "Reprojection error of the reward",
        "",
        "lower",
        4,
        "Mean e_i of the worst views, in median depths if the reward is relative, else in scene units.",
        "What the geometry model gets wrong in all views alike; views that are not valid.",
    ),
    Metric(
        "reprojection/valid_view_share",
        "Valid views",
        "",
        "higher",
        2,
        "Share of the views that receive enough of the other views' points to have an e_i.",
        "Which views are missing.",
    ),
    Metric(
        "reprojection/overlap",
        "Overlap of the views",
        "",
        "watch",
        2,
        "Share of a view's pixels that are compared, mean over the views. A fall means a judgement on less.",
        "Whether pixels are missing because they move, are hidden or were never seen twice.",
    ),
    Metric(
        "reprojection/static_share",
        "Static share",
        "",
        "watch",
        2,
        "Share of the pixels with a surface that do not move, by the scene flow; 1 without a flow.",
        "What moves and is first seen after the first view.",
    ),
)
"""Of `vggrpo score`, beside the rewards themselves: the parts of both."""

_POSE = "the larger of the errors of relative rotation and of the direction of relative translation"

GEOMETRY = _by_name(
    *(
        Metric(
            f"pose_auc_{degrees}",
            f"Pose AUC@{degrees}",
            "",
            "higher",
            3,
            f"Area under the accuracy of pairs of views up to {degrees} degrees: {_POSE}.",
            "Lengths of translations; directions of the opposite sign.",
        )
        for degrees in (5, 10, 30)
    ),
    Metric(
        "pair_rotation_deg",
        "Rotation error of pairs",
        "degrees",
        "lower",
        2,
        "Mean angle of the error of the relative rotation over all pairs of views.",
        "Translations.",
    ),
    Metric(
        "pair_direction_deg",
        "Direction error of pairs",
        "degrees",
        "lower",
        2,
        "Mean angle between relative translation and the true one, 0 to 90, over pairs that are apart.",
        "Lengths of translations; directions of the opposite sign.",
    ),
    Metric(
        "ate",
        "Trajectory error (ATE)",
        "depths",
        "lower",
        4,
        "Root mean square distance of the camera centres after the best similarity, in median true depths.",
        "Rotations of the cameras; scale; never above the true path's own spread, so small for short paths.",
    ),
    Metric(
        "aligned_depth_abs_rel",
        "Depth AbsRel (aligned)",
        "",
        "lower",
        3,
        "Mean |d - d*| / d* after one factor per clip, the median of d*/d.",
        "The scale of the scene.",
    ),
    Metric(
        "aligned_depth_delta",
        "Depth delta < 1.25 (aligned)",
        "",
        "higher",
        3,
        "Share of pixels whose depth is within a factor of 1.25 of the true one, after one factor per clip.",
        "The scale of the scene; how far off the others are.",
    ),
    Metric(
        "moving_flow_epe",
        "Scene-flow error (moving)",
        "depths",
        "lower",
        4,
        "Mean |F - F*| where the true flow is not 0, in median true depths, after the depth's factor.",
        "Motion that is seen where there is none; what the first view does not see.",
    ),
    Metric(
        "moving_flow_length",
        "Scene flow, true length (moving)",
        "depths",
        "watch",
        4,
        "Mean |F*| on the same pixels: the error of a model that sees no motion. The same for every model.",
        "Directions.",
    ),
)
"""Of `vggrpo evaluate-geometry`."""
