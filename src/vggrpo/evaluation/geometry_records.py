"""What `vggrpo evaluate-geometry` keeps of every clip, and the summary of all."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vggrpo.evaluation.geometry_metrics import (
    FLOW_METRICS,
    GEOMETRY_METRICS,
    LEAST_VIEWS_TO_ALIGN,
    STILL_BASELINE,
    finite_scenes,
    geometry_metrics,
    on_raster,
    pair_errors,
    pose_errors,
)
from vggrpo.evaluation.videos.results import Record
from vggrpo.geometry import SceneGeometry, median_depth

NO_FLOW = "the model predicts no scene flow"
ACCURACY_DEGREES = 30
"""Pair errors beyond this are kept as this: no figure looks further."""


def measure_scenes(scene: SceneGeometry, truth: SceneGeometry) -> list[Record]:
    """The metrics, pair errors and notes of B predicted scenes against exact ones of the same views.

    The truth is taken to the prediction's raster. Each record holds `metrics` (None where a clip has none),
    `notes` (why) and `pair_error_deg`, sorted: of every pair of views the larger of both pose errors, capped.
    """
    truth = on_raster(truth, scene.height, scene.width)
    columns = geometry_metrics(scene, truth)
    pairs = _pair_errors(scene, truth)
    known = finite_scenes(scene).tolist()
    records = []
    for row, is_known in enumerate(known):
        values = {name: _number(columns[name][row]) if name in columns else None for name in GEOMETRY_METRICS}
        notes = _notes(values, scene, truth) if is_known else ["the predicted geometry is not finite"]
        error = pairs[row].clamp_max(ACCURACY_DEGREES).sort().values.tolist() if is_known else []
        records.append(
            {"metrics": values, "notes": notes, "pair_error_deg": [round(value, 3) for value in error]}
        )
    return records


def not_run(records: Sequence[Record]) -> dict[str, str]:
    """The metrics that no clip can have, because the model does not predict what they judge."""
    measured = [record for record in records if record["status"] == "ok"]
    if measured and all(NO_FLOW in record["notes"] for record in measured):
        return dict.fromkeys(FLOW_METRICS, NO_FLOW)
    return {}


def accuracy_curve(records: Sequence[Record]) -> list[float]:
    """Share of the pairs of all clips with an error below 1, 2, ... 30 degrees; empty without any pair.

    Its mean is AUC@30 if all clips have equally many pairs.
    """
    errors = torch.tensor([error for record in records for error in record.get("pair_error_deg", ())])
    if not len(errors):
        return []
    return [float((errors < degrees).double().mean()) for degrees in range(1, ACCURACY_DEGREES + 1)]


def _pair_errors(scene: SceneGeometry, truth: SceneGeometry) -> Tensor:
    """[B, P] degrees."""
    predicted, true = (s.camera_to_world.detach().cpu().double() for s in (scene, truth))
    still = STILL_BASELINE * median_depth(truth.depth_z).cpu().double()
    return pose_errors(*pair_errors(predicted, true, still))


def _notes(values: Mapping[str, float | None], scene: SceneGeometry, truth: SceneGeometry) -> list[str]:
    notes = []
    if scene.num_views < LEAST_VIEWS_TO_ALIGN:
        notes.append(f"{scene.num_views} views have no trajectory error: it needs {LEAST_VIEWS_TO_ALIGN}")
    if values["pair_direction_deg"] is None:
        notes.append("the camera stays in its place, so pairs of views count by their rotation alone")
    if values["aligned_depth_abs_rel"] is None:
        notes.append("no predicted depth is positive where there is a surface")
    if scene.scene_flow_from_ref is None:
        notes.append(NO_FLOW)
    elif truth.scene_flow_from_ref is None:
        notes.append("the exact geometry has no scene flow")
    elif values["moving_flow_epe"] is None and values["aligned_depth_abs_rel"] is not None:
        notes.append("nothing that the first view sees moves")
    return notes


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def finite_json(value: Any) -> Any:
    """The same with None in place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {name: finite_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
