"""Everything the report shows, as plain data that the caller assembles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggrpo.evaluation.alarms import Alarm
from vggrpo.evaluation.catalogue import describe
from vggrpo.evaluation.comparison import Agreement, Comparison, summary
from vggrpo.evaluation.gate import LGMGate
from vggrpo.evaluation.optical_flow import dis_flow, dominant_motion
from vggrpo.evaluation.records import EvaluationRecords
from vggrpo.evaluation.report.clipping import Clipping
from vggrpo.evaluation.timing import RewardTiming
from vggrpo.geometry import SceneGeometry, camera_centres, median_depth
from vggrpo.viewer import Scene4D

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Figure:
    """One number with its name."""

    label: str
    value: float
    unit: str = ""
    decimals: int = 3
    note: str = ""


@dataclass(frozen=True)
class VideoPair:
    """The same prompt and the same initial noise, before and after."""

    prompt: str
    kind: str
    before: Frames
    """uint8 [T, H, W, 3]."""
    after: Frames
    """uint8 [T, H, W, 3]."""
    figures: Sequence[tuple[str, float, float, int]] = ()
    """(label, value before, value after, decimals) rows beneath the videos."""
    paths: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    """Camera centres [V, 3] before and after in OpenCV axes, in median depths of their scenes; finite."""
    no_paths: str = ""
    """Why there are none, for the reader."""

    def __post_init__(self) -> None:
        for name, clip in (("before", self.before), ("after", self.after)):
            if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3:
                raise ValueError(
                    f"{name} has shape {clip.shape} and type {clip.dtype}, expected uint8 [T, H, W, 3]"
                )
        if self.before.shape != self.after.shape:
            raise ValueError(
                f"before has shape {self.before.shape} and after {self.after.shape}; they must be equal"
            )

    @property
    def speeds(self) -> tuple[list[float], list[float]]:
        """Speed of the dominant optical flow between adjacent frames, pixels per frame, before and after."""
        clips = torch.from_numpy(np.stack([self.before, self.after])).float() / 255
        before, after = dominant_motion(dis_flow(clips)).norm(dim=-1)
        return before.tolist(), after.tolist()


def video_pair(
    before: EvaluationRecords,
    after: EvaluationRecords,
    key: tuple[str, int],
    frames_before: Tensor,
    frames_after: Tensor,
    metrics: Sequence[str] = (),
    scenes: tuple[SceneGeometry, SceneGeometry] | None = None,
) -> VideoPair:
    """The pair of one held-out sample, with its own figures.

    Args:
        before, after: the records of both evaluations.
        key: (prompt_id, index of the noise).
        frames_before, frames_after: [T, H, W, 3] in [0, 1].
        metrics: names of the metrics shown beneath the videos.
        scenes: what a geometry model sees in the two, of one clip each: their camera paths are drawn, where
            they are finite.

    Raises:
        ValueError: if a record lacks the sample or a metric.
    """
    for name, records in (("before", before), ("after", after)):
        if key not in records.keys:
            raise ValueError(f"the records {name} hold no sample {key}")
    row, row_after = before.keys.index(key), after.keys.index(key)
    figures = [
        (
            describe(metric).label,
            float(before.values(metric)[row]),
            float(after.values(metric)[row_after]),
            describe(metric).decimals,
        )
        for metric in metrics
    ]
    clips = [(clip.clamp(0, 1) * 255).round().byte().cpu().numpy() for clip in (frames_before, frames_after)]
    paths, no_paths = _camera_paths(*scenes) if scenes is not None else (None, "")
    prompt, kind = before.columns["prompt"][row], before.columns["kind"][row]
    return VideoPair(prompt, kind, clips[0], clips[1], figures, paths, no_paths)


def _camera_paths(
    before: SceneGeometry, after: SceneGeometry
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]] | None, str]:
    """Both paths; None, and why, where one of them cannot be drawn."""
    paths = _camera_path(before), _camera_path(after)
    broken = [name for name, path in zip(("before", "after"), paths, strict=True) if not _is_finite(path)]
    if not broken:
        return paths, ""
    return None, f"The geometry model found no finite camera path in the video {' and '.join(broken)}."


def _camera_path(scene: SceneGeometry) -> NDArray[np.float64]:
    """Camera centres [V, 3] in median depths, from the first camera's place; not finite without a surface."""
    centres = camera_centres(scene.camera_to_world)[0].double().cpu()
    depth = median_depth(scene.depth_z)[0].double().cpu()
    path: NDArray[np.float64] = ((centres - centres[0]) / depth).numpy()
    return path


def _is_finite(path: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(path).all())


def fidelity_figures(records: EvaluationRecords, note: str = "") -> list[Figure]:
    """The LGM's errors against its teacher, means over the samples, as rows for `ReportData.fidelity`."""
    return [
        Figure(metric.label, mean.mean, metric.unit, metric.decimals, note or metric.meaning)
        for metric, mean in ((describe(name), mean) for name, mean in summary(records).items())
        if metric.name.startswith("fidelity/")
    ]


@dataclass(frozen=True)
class Curve:
    """One line of one panel of the training section."""

    panel: str
    """Curves of the same panel share a plot, in the order in which they come."""
    label: str
    steps: Sequence[float]
    values: Sequence[float]
    """NaN leaves a gap."""
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    x_label: str = "iteration"

    @classmethod
    def from_records(
        cls,
        records: Sequence[Mapping[str, Any]],
        metric: str,
        panel: str,
        label: str,
        x_label: str = "iteration",
    ) -> "Curve":
        """The curve of one metric of a run's metrics.jsonl; records without it are skipped, null is NaN.

        Raises:
            ValueError: if no record has the metric.
        """
        points = [(record["step"], record[metric]) for record in records if metric in record]
        if not points:
            raise ValueError(f"no record has the metric {metric!r}")
        values = [float("nan") if value is None else float(value) for _, value in points]
        return cls(panel, label, [float(step) for step, _ in points], values, x_label=x_label)


@dataclass(frozen=True)
class LayerSearchData:
    """The stitch-layer search: held-out and output errors of the untrained model at every candidate."""

    names: Sequence[str]
    errors: Mapping[str, Sequence[float]]
    """By the name of the error, one value a candidate; the first is the held-out token error."""
    chosen: str
    fit_clips: int
    held_out_clips: int

    @classmethod
    def from_search(cls, search: Mapping[str, Any], chosen: str | None = None) -> "LayerSearchData":
        """From the dictionary (or JSON) of `vggrpo.lgm.LayerSearch.as_dict()`.

        Errors that the search did not measure at every candidate are left out.
        """
        rows = search["candidates"]
        labels = {
            "held_out_error": "held-out token error, 1 \u2212 R\u00b2",
            "downstream_error": "output error, untrained (1 = blind)",
            "rotation_deg": "rotation error, untrained (deg)",
        }
        return cls(
            [row["point"] for row in rows],
            {
                label: [row[key] for row in rows]
                for key, label in labels.items()
                if all(row[key] is not None for row in rows)
            },
            chosen or search["recommended"],
            search["num_fit_clips"],
            search["num_held_out_clips"],
        )


@dataclass(frozen=True)
class Stage:
    """One stage of the run: what it did and how long it took."""

    name: str
    words: str
    seconds: float


@dataclass(frozen=True)
class RunFacts:
    """The quantities that the words of the report are made of. What is None is not mentioned."""

    base_model: str
    geometry_model: str
    num_frames: int
    height: int
    width: int
    fps: float
    rewards: Sequence[str]
    stitch_point: str | None = None
    real_clips: int | None = None
    generated_clips: int | None = None
    train_prompts: int | None = None
    iterations: int | None = None
    group_size: int | None = None
    groups_per_iteration: int | None = None
    denoising_steps: int | None = None
    stochastic_steps: int | None = None
    updates_per_rollout: int | None = None
    noise_scale: float | None = None
    clip_eps: float | None = None
    kl_coef: float | None = None
    learning_rate: float | None = None
    lora_rank: int | None = None
    held_out_prompts: int | None = None
    held_out_noises: int | None = None
    evaluation_steps: int | None = None


@dataclass(frozen=True)
class ReportData:
    """One report. A section without data must have its reason in `left_out`; see SECTIONS in `sections`."""

    title: str
    facts: RunFacts
    command: str
    """The exact command that made the run."""
    created: str
    """Date and time, as text."""
    settings: Mapping[str, Any]
    """The resolved settings, nested."""
    machine: Mapping[str, str]
    stages: Sequence[Stage] = ()
    comparisons: Sequence[Comparison] = ()
    videos: Sequence[VideoPair] = ()
    video_choice: str = ""
    """How the shown videos were chosen, as a sentence."""
    scenes: Sequence[tuple[Scene4D, Scene4D]] = ()
    """What a geometry model sees in some of the videos, before and after."""
    curves: Sequence[Curve] = ()
    clipping: Clipping | None = None
    """Ratios and clipped steps of the updates."""
    layer_search: LayerSearchData | None = None
    agreement: Mapping[str, Sequence[Agreement]] = field(default_factory=dict)
    """By whose clips ("base model", "aligned model"), the rewards through the LGM against the teacher."""
    gate: LGMGate | None = None
    """Of the latent geometry model, measured before the policy was trained."""
    alarms: Sequence[Alarm] | None = None
    """Those that were raised; None where nothing watched."""
    num_evaluations: int = 0
    """Held-out evaluations after which alarms could be raised."""
    fidelity: Sequence[Figure] = ()
    """Errors of the LGM's outputs against the teacher's."""
    timing: RewardTiming | None = None
    remarks: Sequence[str] = ()
    """Sentences to be read with the figures: what this run is not."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """By section name, why it has no data."""
