"""The outputs of stitched models that are not trained yet, against the teacher's: does a stitch point work
at all?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from vggrpo.backbones.base import GeometryBackbone
from vggrpo.geometry import SceneGeometry, masked_mean, safe_norm, so3_log
from vggrpo.lgm.connector import Connector
from vggrpo.lgm.quality import (
    camera_errors_from_first,
    cameras_from_first,
    log_depth,
    scene_scale,
    seen_pixels,
)

Clips = tuple[Tensor, Tensor]
"""Latents [B, C, T, H, W] and the same clips' frames [B, T, h * patch, w * patch, 3], one per latent
frame."""


@dataclass(frozen=True)
class OutputErrors:
    """Errors of predicted scenes, each a mean over clips."""

    log_depth: float
    """Mean |log d - log d*| over the pixels that the teacher sees."""
    rotation_deg: float
    """Mean angle between camera rotations relative to the first view, degrees."""
    translation: float
    """Mean distance between camera centres in the first view's frame, in median depths."""

    def relative_to(self, reference: "OutputErrors") -> float:
        """The mean of the three errors, each divided by the reference's."""
        own, other = asdict(self), asdict(reference)
        return sum(own[name] / other[name] for name in own) / len(own)


NOTHING_SEEN_FLOOR = OutputErrors(log_depth=1e-2, rotation_deg=0.1, translation=1e-2)
"""The least error that seeing nothing is taken to make: clips may show a flat wall from a still camera."""


@torch.no_grad()
def stitched_output_errors(
    backbone: GeometryBackbone, connectors: Mapping[str, Connector], clips: Sequence[Clips]
) -> tuple[dict[str, OutputErrors], OutputErrors]:
    """Errors of the uncut backbone entered through each connector (keys: stitch points), and of seeing
    nothing.

    To see nothing is to predict each clip's median depth everywhere and a camera that does not move.

    Raises:
        ValueError: if the clips have fewer than two views.
    """
    device = next(backbone.parameters()).device
    found: dict[str, list[Tensor]] = {name: [] for name in connectors}
    nothing: list[Tensor] = []
    for latents, frames in clips:
        if latents.shape[2] < 2:
            raise ValueError("the clips have one view; camera errors need at least two latent frames")
        latents, teacher = latents.to(device), backbone(frames.to(device))
        nothing.append(_nothing_seen_errors(teacher))
        for name, connector in connectors.items():
            found[name].append(_output_errors(connector.finish(backbone, name, latents), teacher))
    floors = asdict(NOTHING_SEEN_FLOOR)
    reference = {name: max(value, floors[name]) for name, value in asdict(_mean(nothing)).items()}
    return {name: _mean(errors) for name, errors in found.items()}, OutputErrors(**reference)


def _output_errors(student: SceneGeometry, teacher: SceneGeometry) -> Tensor:
    """The three errors of a student per scene, [3, B]."""
    scale = scene_scale(teacher)
    angles, distances = camera_errors_from_first(student, teacher)
    depth_error = (log_depth(student, scale) - log_depth(teacher, scale)).abs()
    return _per_scene(depth_error, angles, distances, teacher, scale)


def _nothing_seen_errors(teacher: SceneGeometry) -> Tensor:
    """The three errors of seeing nothing per scene, [3, B]."""
    scale = scene_scale(teacher)
    rotations, centres = cameras_from_first(teacher)
    depth_error = (log_depth(teacher, scale) - scale.log()[:, None, None, None]).abs()
    return _per_scene(depth_error, safe_norm(so3_log(rotations)), safe_norm(centres), teacher, scale)


def _per_scene(
    depth_error: Tensor, angles: Tensor, distances: Tensor, teacher: SceneGeometry, scale: Tensor
) -> Tensor:
    depth = masked_mean(depth_error, seen_pixels(teacher, scale), (1, 2, 3))
    return torch.stack([depth, angles.mean(dim=1).rad2deg(), distances.mean(dim=1) / scale])


def _mean(errors: Sequence[Tensor]) -> OutputErrors:
    log_depth_error, rotation_deg, translation = torch.cat(list(errors), dim=1).double().mean(dim=1).tolist()
    return OutputErrors(log_depth_error, rotation_deg, translation)
