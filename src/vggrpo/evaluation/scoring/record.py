"""The rewards of one scene as numbers for a record."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vggrpo.config.score import Space
from vggrpo.evaluation.catalogue_geometry import SCORES
from vggrpo.geometry import SceneGeometry
from vggrpo.rewards import Reward, SceneReward
from vggrpo.rewards.base import usable_samples
from vggrpo.viewer.scene_building import FAILED

SOURCE_OF_SPACE: dict[Space, str] = {"latent": "lgm", "rgb": "teacher"}
"""What a reward is called by what sees the clip, as in held-out evaluations: "lgm/camera_motion"."""
VIEW_PARTS = {"view_error": "error", "view_valid": "valid", "overlap": "overlap"}
"""Parts of the reprojection reward with one number for each view, and their names in a record."""
NO_FLOW = "the geometry model has no scene flow: what moves is taken for static"


def score_names(rewards: Sequence[str], space: Space) -> tuple[str, ...]:
    """The names of all values: each reward and then its parts."""
    source = SOURCE_OF_SPACE[space]
    return tuple(
        name
        for reward in rewards
        for name in (f"{source}/{reward}", *(part for part in SCORES if part.startswith(f"{reward}/")))
    )


def score_scene(
    scene: SceneGeometry, rewards: Mapping[str, SceneReward], space: Space
) -> tuple[dict[str, Any], dict[str, Reward]]:
    """What a record says about a scene (a batch of one), and the rewards themselves.

    `metrics`: every reward and the parts that are one number, None where there is none. `views`: the parts
    with one number for each view. `notes`: why a value is missing, and what else a reader must know.
    """
    metrics: dict[str, float | None] = dict.fromkeys(score_names(list(rewards), space))
    views: dict[str, list[float | bool | None]] = {}
    notes: list[str] = []
    scored: dict[str, Reward] = {}
    usable = bool(usable_samples(scene))
    for name, reward in rewards.items():
        try:
            result = reward(scene)
        except ValueError as error:  # too few views, as its text says
            notes.append(f"{name}: {error}")
            continue
        if not bool(result.valid[0]):
            notes.append(f"{name}: {FAILED}")
        if not usable:  # its parts would be those of a substitute
            continue
        scored[name] = result
        metrics[f"{SOURCE_OF_SPACE[space]}/{name}"] = _number(result.value[0])
        for part, values in result.parts.items():
            if f"{name}/{part}" in metrics:
                metrics[f"{name}/{part}"] = _number(values[0].double().mean())
            if part in VIEW_PARTS:
                views[VIEW_PARTS[part]] = [_view_value(value) for value in values[0]]
    if scene.scene_flow_from_ref is None:
        notes.append(NO_FLOW)
    return {"metrics": metrics, "views": views, "notes": notes}, scored


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _view_value(value: Tensor) -> float | bool | None:
    return bool(value) if value.dtype == torch.bool else _number(value)
