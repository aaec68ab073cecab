"""The loss that teaches a latent geometry model to see in latents what its teacher sees in images."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry, relative_rotation, rotate, so3_log
from vggrpo.lgm.quality import (
    log_depth,
    log_focal_difference,
    require_same_views,
    scene_scale,
    seen_pixels,
)

SMOOTHING = 1e-3
"""Below this error (radians, or parts of the median depth) camera terms are quadratic: no kink, finite
gradients."""


DEFAULT_WEIGHTS: Mapping[str, float] = {
    "depth": 1.0,
    "points": 1.0,
    "rotation": 1.0,
    "translation": 1.0,
    "intrinsics": 1.0,
    "scene_flow": 1.0,
    "confidence": 0.1,
}
"""The parts of the loss and what each counts; a part of weight 0 is reported but not trained."""


def distillation_loss(
    student: SceneGeometry,
    teacher: SceneGeometry,
    weights: Mapping[str, float] | None = None,
    weight_by_confidence: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the parts below, and the parts themselves (unweighted, detached, scalars).

    With the teacher's quantities starred and s the teacher's median depth of each scene:

    - depth: mean |log d - log d*|
    - points: mean |X - X*| / s, per coordinate
    - rotation: geodesic angle of each view's camera, plus that of consecutive relative rotations, radians
    - translation: |c - c*| / s of each view's centre, plus that of consecutive steps seen from the earlier
      camera
    - intrinsics: mean |log f - log f*|
    - scene_flow: mean |F - F*| / s, per coordinate; if the teacher has scene flow
    - confidence: mean |log C - log C*|; if the teacher has confidence

    Pixels count where the teacher's depth is finite and positive. Every scene counts alike, so the loss of a
    batch is the mean of its parts', by their sizes. All parts are differentiable with respect
    to the student, and finite with finite gradients where both agree.

    Args:
        student: the latent geometry model's scenes; gradients flow into them.
        teacher: the uncut model's scenes of the same clips; treated as constant.
        weights: of the parts, where they differ from `DEFAULT_WEIGHTS`.
        weight_by_confidence: weight the pixels of depth, points and scene flow by the teacher's confidence,
            divided by its mean over the scene.

    Raises:
        ValueError: if a weight's name or value is wrong, the scenes' shapes differ, the student lacks what
            the teacher has, the teacher sees nothing in a scene, or `weight_by_confidence` is asked of a
            teacher without confidence.
    """
    weight_of = _checked_weights(weights or {})
    teacher = teacher.detach()
    require_same_views(student, teacher)
    scale = scene_scale(teacher)
    pixel_weight = seen_pixels(teacher, scale).to(teacher.dtype)
    if weight_by_confidence:
        pixel_weight = pixel_weight * _relative_confidence(teacher)

    parts = {
        "depth": _weighted_l1(log_depth(student, scale), log_depth(teacher, scale), pixel_weight),
        "points": _weighted_l1(student.world_points, teacher.world_points, pixel_weight, scale),
        "rotation": _rotation_error(student, teacher),
        "translation": _translation_error(student, teacher, scale),
        "intrinsics": log_focal_difference(student, teacher).abs().mean(),
    }
    if teacher.scene_flow_from_ref is not None:
        flow = _required(student.scene_flow_from_ref, "scene flow")
        reference_weight = pixel_weight[:, :1].expand_as(pixel_weight)
        parts["scene_flow"] = _weighted_l1(flow, teacher.scene_flow_from_ref, reference_weight, scale)
    if teacher.confidence is not None:
        confidence = _required(student.confidence, "confidence")
        parts["confidence"] = (_log(confidence) - _log(teacher.confidence)).abs().mean()

    loss = torch.stack([weight_of[name] * part for name, part in parts.items()]).sum()
    return loss, {name: part.detach() for name, part in parts.items()}


def _checked_weights(weights: Mapping[str, float]) -> dict[str, float]:
    for name, value in weights.items():
        if name not in DEFAULT_WEIGHTS:
            raise ValueError(
                f"{name!r} is no part of the distillation loss; the parts are {', '.join(DEFAULT_WEIGHTS)}"
            )
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"the weight of {name} is {value}; expected a finite number of at least 0")
    return {**DEFAULT_WEIGHTS, **weights}


def _weighted_l1(x: Tensor, target: Tensor, weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """sum w |x - target| / sum w over the pixels [B, T, H, W] of each scene, per coordinate of vectors, in
    units of `scale` [B]; the mean over scenes, of which those without weight add nothing.

    Where w is 0 the target may be non-finite without harm to the gradient.
    """
    if scale is not None:
        x, target = x / scale[:, None, None, None, None], target / scale[:, None, None, None, None]
        weight = weight[..., None].expand_as(x)
    errors = weight * torch.where(weight > 0, x - target, 0.0).abs()
    return (errors.flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1e-12)).mean()


def _log(confidence: Tensor) -> Tensor:
    return confidence.clamp_min(1e-6).log()


def _smooth_norm(x: Tensor) -> Tensor:
    """sqrt(|x|^2 + d^2) - d over the last dimension: |x| but for a quadratic tip, 0 at 0 with gradient 0."""
    return (x.square().sum(dim=-1) + SMOOTHING**2).sqrt() - SMOOTHING


def _rotation_error(student: SceneGeometry, teacher: SceneGeometry) -> Tensor:
    R, R_true = student.camera_to_world[..., :3, :3], teacher.camera_to_world[..., :3, :3]
    error = _geodesic(R, R_true).mean()
    if student.num_views > 1:
        steps, true_steps = (relative_rotation(x[:, :-1], x[:, 1:]) for x in (R, R_true))
        error = error + _geodesic(steps, true_steps).mean()
    return error


def _geodesic(R: Tensor, R_true: Tensor) -> Tensor:
    return _smooth_norm(so3_log(relative_rotation(R_true, R)))


def _translation_error(student: SceneGeometry, teacher: SceneGeometry, scale: Tensor) -> Tensor:
    c, c_true = student.camera_to_world[..., :3, 3], teacher.camera_to_world[..., :3, 3]
    error = _smooth_norm((c - c_true) / scale[:, None, None]).mean()
    if student.num_views > 1:
        steps = _steps_in_camera(student) - _steps_in_camera(teacher)
        error = error + _smooth_norm(steps / scale[:, None, None]).mean()
    return error


def _steps_in_camera(scene: SceneGeometry) -> Tensor:
    """R_i^T (c_{i+1} - c_i): each step seen from the earlier camera, [B, T-1, 3]."""
    R, c = scene.camera_to_world[..., :3, :3], scene.camera_to_world[..., :3, 3]
    return rotate(R[:, :-1].mT, c.diff(dim=1))


def _relative_confidence(teacher: SceneGeometry) -> Tensor:
    """The teacher's confidence divided by its mean over the scene, [B, T, H, W]."""
    if teacher.confidence is None:
        raise ValueError("weight_by_confidence is set, but the teacher predicts no confidence; unset it")
    return teacher.confidence / teacher.confidence.mean(dim=(1, 2, 3), keepdim=True)


def _required(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise ValueError(
            f"the teacher predicts {name} but the student does not; distil a student of the same model"
        )
    return value
