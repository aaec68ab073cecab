"""Errors of predicted scenes against exact ones, as the field measures cameras, depth and scene flow.

A model's world may be turned, moved and scaled against the true one: relative poses and directions do not see
that, camera paths are aligned by the best similarity, and depth and flow by one factor per clip.
"""

from dataclasses import replace

import torch
from torch import Tensor

from vggrpo.geometry import (
    SceneGeometry,
    camera_centres,
    masked_mean,
    masked_median,
    median_depth,
    relative_pose,
    relative_rotation,
    rotate,
    safe_norm,
    so3_log,
    valid_depth,
)

AUC_THRESHOLDS = (5, 10, 30)
"""Degrees."""
STILL_BASELINE = 1e-3
"""Shortest true distance of two cameras, in median depths, that has a direction."""
MOVING = 1e-3
"""Least true displacement of a moving pixel, in median depths."""
DELTA = 1.25
LEAST_VIEWS_TO_ALIGN = 3
"""Any two points can be laid on any two others."""

POSE_METRICS = (
    *(f"pose_auc_{threshold}" for threshold in AUC_THRESHOLDS),
    "pair_rotation_deg",
    "pair_direction_deg",
    "ate",
)
DEPTH_METRICS = ("aligned_depth_abs_rel", "aligned_depth_delta")
FLOW_METRICS = ("moving_flow_epe", "moving_flow_length")
GEOMETRY_METRICS = POSE_METRICS + DEPTH_METRICS + FLOW_METRICS
"""Names of what `geometry_metrics` measures; each is described in `vggrpo.evaluation.catalogue`."""


def geometry_metrics(scene: SceneGeometry, truth: SceneGeometry) -> dict[str, Tensor]:
    """Every error of B predicted scenes against the truth, [B] each, float64.

    NaN where a clip has none: `ate` with fewer than 3 views, `pair_direction_deg` of a camera that stays in
    its place, the flow where nothing moves, and everything where the prediction is not finite. The flow's
    values are absent if either scene has no flow.

    Args:
        scene: the prediction.
        truth: exact geometry of the same views, on the same raster; its depth must be valid somewhere.

    Raises:
        ValueError: if the scenes differ in batch, views or raster, have one view, or a true scene is empty.
    """
    if scene.depth_z.shape != truth.depth_z.shape:
        raise ValueError(
            f"the prediction's depth has shape {list(scene.depth_z.shape)}, the truth's "
            f"{list(truth.depth_z.shape)}; compare the same views on one raster (see on_raster)"
        )
    if truth.num_views < 2:
        raise ValueError("the scenes have one view, but errors of cameras need at least two")
    scene, truth = scene.to("cpu", torch.float64), truth.to("cpu", torch.float64)
    unit = median_depth(truth.depth_z)
    if bool(unit.isnan().any()):
        raise ValueError(f"the true scenes {unit.isnan().nonzero().flatten().tolist()} see no surface")
    known = finite_scenes(scene)
    measured = _errors(scene.take(known), truth.take(known), unit[known])
    return {name: _spread(value, known) for name, value in measured.items()}


def _errors(scene: SceneGeometry, truth: SceneGeometry, unit: Tensor) -> dict[str, Tensor]:
    """The metrics of scenes whose numbers are all finite; `unit` [B] is their median true depth."""
    rotation, direction = pair_errors(scene.camera_to_world, truth.camera_to_world, STILL_BASELINE * unit)
    error = pose_errors(rotation, direction)
    values = {f"pose_auc_{threshold}": pose_auc(error, threshold) for threshold in AUC_THRESHOLDS}
    values |= {"pair_rotation_deg": rotation.mean(dim=1), "pair_direction_deg": direction.nanmean(dim=1)}
    values["ate"] = aligned_trajectory_error(scene.camera_to_world, truth.camera_to_world) / unit
    scale = depth_scale(scene.depth_z, truth.depth_z)
    values |= depth_errors(scene.depth_z, truth.depth_z, scale)
    if scene.scene_flow_from_ref is not None and truth.scene_flow_from_ref is not None:
        values |= flow_errors(scene, truth, scale, unit)
    return values


def finite_scenes(scene: SceneGeometry) -> Tensor:
    """[B] bool: whether all cameras, depths and flows of a scene are finite numbers."""
    tensors = [scene.camera_to_world, scene.depth_z, scene.scene_flow_from_ref]
    finite = [tensor.isfinite().flatten(1).all(dim=1) for tensor in tensors if tensor is not None]
    return torch.stack(finite).all(dim=0)


def on_raster(scene: SceneGeometry, height: int, width: int) -> SceneGeometry:
    """The scene's pixels nearest to the centres of another raster's, cameras and scene units unchanged.

    Nothing is interpolated, so that no surface appears between two others.
    """
    if (height, width) == (scene.height, scene.width):
        return scene
    rows, columns = (
        ((torch.arange(count, device=scene.device) + 0.5) * length / count).floor().long()
        for count, length in ((height, scene.height), (width, scene.width))
    )
    images = {
        name: tensor[:, :, rows][:, :, :, columns]
        for name, tensor in scene.as_dict().items()
        if name not in ("camera_to_world", "intrinsics")
    }
    factor = scene.intrinsics.new_tensor([[width / scene.width], [height / scene.height], [1.0]])
    intrinsics = scene.intrinsics * factor
    # Integer coordinates are pixel centres, so the raster's corner is at -1/2.
    intrinsics[..., :2, 2] += 0.5 * (factor[:2, 0] - 1)
    return replace(scene, intrinsics=intrinsics, **images)


def pair_errors(predicted: Tensor, true: Tensor, still: Tensor) -> tuple[Tensor, Tensor]:
    """Errors of the relative poses of all pairs of views i < j, [B, P] each, in degrees.

    Of the relative pose from j to i: the angle of its rotation's error, 0 to 180, and the angle between its
    translation and the true one, 0 to 90: as in PoseDiffusion and VGGT a direction and its opposite count
    alike. A predicted translation of length 0 counts as 90. The direction is NaN where the true distance is
    at most `still`.

    Args:
        predicted: camera_to_world [B, T, 4, 4].
        true: the same of the exact cameras.
        still: [B], scene units.
    """
    first, second = torch.triu_indices(predicted.shape[1], predicted.shape[1], offset=1)
    relative = relative_pose(predicted[:, first], predicted[:, second])
    true_relative = relative_pose(true[:, first], true[:, second])
    rotation = safe_norm(so3_log(relative_rotation(true_relative[..., :3, :3], relative[..., :3, :3])))
    t, true_t = relative[..., :3, 3], true_relative[..., :3, 3]
    # atan2 keeps small angles, which acos loses.
    direction = torch.atan2(safe_norm(torch.linalg.cross(t, true_t)), (t * true_t).sum(-1).abs())
    direction = torch.where(safe_norm(t) > 0, direction, torch.pi / 2)
    direction = torch.where(safe_norm(true_t) > still[:, None], direction, torch.nan)
    return rotation.rad2deg(), direction.rad2deg()


def pose_errors(rotation: Tensor, direction: Tensor) -> Tensor:
    """The larger of both errors of a pair [B, P], or the rotation's where there is no direction."""
    return torch.fmax(rotation, direction)


def pose_auc(error: Tensor, threshold: int) -> Tensor:
    """Area under the curve of accuracy over the error's threshold, [B, P] degrees to [B] in [0, 1].

        AUC@K = 1/K sum_{k=1..K} P(error < k degrees)

    in steps of one degree, as PoseDiffusion and VGGT compute it.
    """
    return ((threshold - error.floor()).clamp_min(0) / threshold).mean(dim=1)


def aligned_trajectory_error(predicted: Tensor, true: Tensor) -> Tensor:
    """The absolute trajectory error [B], in the truth's scene units: the root mean square distance of camera
    centres after the best similarity transform. NaN with fewer than 3 views."""
    if true.shape[1] < LEAST_VIEWS_TO_ALIGN:
        return true.new_full((len(true),), torch.nan)
    source, target = camera_centres(predicted), camera_centres(true)
    scale, rotation, translation = align_similarity(source, target)
    aligned = scale[:, None, None] * rotate(rotation, source) + translation[:, None]
    return (aligned - target).square().sum(-1).mean(-1).sqrt()


def align_similarity(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale s [B], rotation R [B, 3, 3] and translation t [B, 3] that minimise sum_i |s R x_i + t - y_i|^2.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991). The
    scale is 0 where all points of the source are one.

    Args:
        source: points x [B, N, 3].
        target: points y [B, N, 3].
    """
    source_mean, target_mean = source.mean(dim=1), target.mean(dim=1)
    x, y = source - source_mean[:, None], target - target_mean[:, None]
    U, singular, Vt = torch.linalg.svd(y.mT @ x)
    # A reflection may fit better, but no camera path is mirrored.
    signs = torch.ones_like(singular)
    signs[:, 2] = torch.where(torch.linalg.det(U @ Vt) < 0, -1.0, 1.0)
    rotation = U @ (signs[..., None] * Vt)
    variance = x.square().sum(dim=(1, 2))
    scale = torch.where(variance > 0, (singular * signs).sum(-1) / variance.clamp_min(1e-300), 0.0)
    return scale, rotation, target_mean - scale[:, None] * rotate(rotation, source_mean)


def depth_scale(predicted: Tensor, true: Tensor) -> Tensor:
    """The factor of each clip that lays its depths [B, T, H, W] on the true ones: the median of d*/d over the
    pixels where both are valid, [B]. NaN if there are none."""
    both = valid_depth(predicted) & valid_depth(true)
    return masked_median(true / torch.where(both, predicted, 1.0), both)


def depth_errors(predicted: Tensor, true: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """Over the pixels with a true depth d*, of the predicted depth d after the clip's factor `scale` [B].

    `aligned_depth_abs_rel` = mean |d - d*| / d*, and `aligned_depth_delta`, the share of pixels with
    max(d/d*, d*/d) < 1.25; a depth that is not positive is beyond it. Both are [B].
    """
    seen = valid_depth(true)
    ratio = scale[:, None, None, None] * predicted / torch.where(seen, true, 1.0)
    close = (ratio < DELTA) & (ratio > 1 / DELTA)
    pixels = (1, 2, 3)
    delta = masked_mean(close.to(true.dtype), seen, pixels)
    return {
        "aligned_depth_abs_rel": masked_mean((ratio - 1).abs(), seen, pixels),
        "aligned_depth_delta": torch.where(scale.isnan(), torch.nan, delta),
    }


def flow_errors(scene: SceneGeometry, truth: SceneGeometry, scale: Tensor, unit: Tensor) -> dict[str, Tensor]:
    """The scene flow's error where it is not 0, in median true depths, [B].

    Over the entries (view, pixel of view 0) that are truly displaced by more than `MOVING` median depths:
    `moving_flow_epe` = mean |s F - F*|, and `moving_flow_length` = mean |F*|, which is the error of a model
    that sees no motion. Both flows are in the axes of their own first camera, F is scaled as depth is.

    Args:
        scene: the prediction, with flow.
        truth: the exact scene, with flow.
        scale: of the depth, [B].
        unit: median true depth, [B].
    """
    flow, true_flow = _flow_in_first_camera(scene), _flow_in_first_camera(truth)
    per_clip = (slice(None), None, None, None)
    length = safe_norm(true_flow) / unit[per_clip]
    moving = (length > MOVING) & valid_depth(truth.depth_z[:, :1])
    error = safe_norm(scale[per_clip][..., None] * flow - true_flow) / unit[per_clip]
    something_moves = moving.flatten(1).any(dim=1)
    pixels = (1, 2, 3)
    return {
        name: torch.where(something_moves, masked_mean(values, moving, pixels), torch.nan)
        for name, values in (("moving_flow_epe", error), ("moving_flow_length", length))
    }


def _flow_in_first_camera(scene: SceneGeometry) -> Tensor:
    """[B, T, H, W, 3]."""
    assert scene.scene_flow_from_ref is not None
    return rotate(scene.camera_to_world[:, 0, :3, :3].mT, scene.scene_flow_from_ref)


def _spread(values: Tensor, known: Tensor) -> Tensor:
    """Values of the known clips in their places among all, [B]; NaN in the others."""
    return values.new_full(known.shape, torch.nan).masked_scatter(known, values)
