"""What a geometry model predicts, completed to a `Scene4D`: static mask, colours, rewards."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vggrpo.backbones import resize_frames
from vggrpo.geometry import SceneGeometry, median_depth, valid_depth, with_static_mask
from vggrpo.rewards import Reward, SceneReward
from vggrpo.viewer.scene_file import RewardRecord, Scene4D

FAILED = "the geometry is not finite, or too little of it can be compared"


@torch.no_grad()
def build_scene(
    geometry: SceneGeometry,
    frames: Tensor | None,
    frame_indices: Sequence[int],
    *,
    fps: float,
    rewards: Mapping[str, SceneReward],
    flow_threshold: float,
    relative: bool,
    label: str = "",
    prompt: str | None = None,
    source: Mapping[str, Any] | None = None,
) -> Scene4D:
    """The scene of one video, on the CPU in float32.

    The static mask is derived from the scene flow, where the geometry has one and no mask yet; without both
    it stays unknown. A reward that cannot be computed is NaN, with the reason in its note.

    Args:
        geometry: of the T views, a batch of one.
        frames: the video [N, H', W', 3] in [0, 1], of any size; without it, colours show depth (see
            `depth_colours`), and the scene's `source["colours"]` says so.
        frame_indices: which of the video's frames the views are.
        fps: frames per second of the video.
        rewards: to record, by name.
        flow_threshold: displacement that counts as moving: scene units, or median depths if `relative`.
        relative: see `flow_threshold`.
        label, prompt, source: as in `Scene4D`.

    Raises:
        ValueError: if the arguments do not fit each other.
    """
    geometry = geometry.detach().to("cpu", torch.float32)
    if geometry.scene_flow_from_ref is not None and geometry.static_mask is None:
        unit = float(median_depth(geometry.depth_z)) if relative else 1.0
        # Without any surface there is no unit, and nothing that could move.
        geometry = with_static_mask(geometry, flow_threshold * (unit if math.isfinite(unit) else 1.0))
    return Scene4D(
        geometry,
        depth_colours(geometry.depth_z[0]) if frames is None else _colours(frames, frame_indices, geometry),
        fps,
        tuple(frame_indices),
        label,
        prompt,
        {name: _record(reward, geometry) for name, reward in rewards.items()},
        {**(source or {}), "colours": "depth" if frames is None else "video"},
    )


def _colours(frames: Tensor, frame_indices: Sequence[int], geometry: SceneGeometry) -> Tensor:
    """[T, H, W, 3] uint8 of the views, on the geometry's raster."""
    views = resize_frames(frames[None, list(frame_indices)].float(), geometry.height, geometry.width)
    return (views[0] * 255).round().to(torch.uint8).cpu()


def depth_colours(depth_z: Tensor) -> Tensor:
    """Depths [T, H, W] as colours [T, H, W, 3] uint8: near is warm, far is cold, no surface is black.

    The scale is logarithmic, between the 2nd and the 98th percentile of the valid depths.
    """
    valid = valid_depth(depth_z)
    if not bool(valid.any()):
        return torch.zeros(*depth_z.shape, 3, dtype=torch.uint8)
    logs = torch.where(valid, depth_z, 1.0).double().log().numpy()
    near, far = np.quantile(logs[valid.numpy()], [0.02, 0.98])
    nearness = np.clip((far - logs) / max(far - near, 1e-6), 0, 1)
    levels = (nearness * 255).round().astype(np.uint8)
    images = np.stack([cv2.applyColorMap(image, cv2.COLORMAP_TURBO)[..., ::-1] for image in levels])
    return torch.from_numpy(images) * valid[..., None]


def _record(reward: SceneReward, geometry: SceneGeometry) -> RewardRecord:
    try:
        scored: Reward = reward(geometry)
    except ValueError as error:  # too few views, or too few pixels, as its text says
        return RewardRecord(math.nan, note=str(error))
    parts = {
        name: float(part[0]) if part.ndim == 1 else tuple(part[0].double().tolist())
        for name, part in scored.parts.items()
    }
    return RewardRecord(float(scored.value[0]), parts, None if bool(scored.valid[0]) else FAILED)
