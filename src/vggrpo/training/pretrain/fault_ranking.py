"""Whether the reprojection reward, seen through the geometry model, tells clean clips from faulty ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vggrpo.config import WorldEvaluateSettings
from vggrpo.evaluation import Interval, auc, bootstrap_statistic
from vggrpo.io import progress
from vggrpo.training.pretrain.contact_sheet import draw_contact_sheet
from vggrpo.training.pretrain.measures import Instruments, Measures, reward_values
from vggrpo.training.pretrain.summary import (
    Columns,
    Figures,
    Rows,
    interval,
    interval_figures,
    number,
    plain,
)
from vggrpo.training.rewards import REPROJECTION
from vggrpo.world import FAULT_KINDS, Fault, SceneSpec, WorldClips, render_clips

CLEAN = "clean"
SOURCES = ("exact", "predicted")
"""The exact geometry of what a clip shows, and the geometry model's."""
SHEET_SCENES = 6


def measure_faults(
    tools: Instruments, specs: Sequence[SceneSpec], settings: WorldEvaluateSettings, sheet: Path
) -> list[Measures]:
    """Every reward on the key frames of every scene, clean and with each fault, in batches.

    "<version>/<source>/<reward>", with a version "clean" or a kind of fault, and a source of `SOURCES`. Draws
    the first scenes on `sheet`.
    """
    parts: list[Measures] = []
    with progress("measure planted faults", total=len(specs), unit="scene") as bar:
        for start in range(0, len(specs), settings.batch_size):
            batch = specs[start : start + settings.batch_size]
            versions = render_versions(batch, settings)
            if start == 0:
                draw_versions(versions, sheet)
            measures: Measures = {}
            for version, clips in versions.items():
                seen = (clips.geometry, tools.teacher.of_views(clips.frames))
                for source, scene in zip(SOURCES, seen, strict=True):
                    rewards = reward_values(scene, tools.rewards)
                    measures |= {f"{version}/{source}/{name}": value for name, value in rewards.items()}
            parts.append(measures)
            bar.advance(len(batch))
    return parts


def render_versions(specs: Sequence[SceneSpec], settings: WorldEvaluateSettings) -> dict[str, WorldClips]:
    """Key frames of the scenes, "clean" and by kind of fault."""
    raster = settings.clips.model_dump()
    versions = {CLEAN: render_clips(specs, views="keys", **raster)}
    for kind in FAULT_KINDS:
        versions[kind] = render_clips(
            specs, views="keys", fault=Fault(kind, settings.fault_severity), **raster
        )
    return versions


def draw_versions(versions: Mapping[str, WorldClips], path: Path) -> None:
    """A contact sheet of the first scenes, each in all its versions."""
    scenes = range(min(SHEET_SCENES, len(versions[CLEAN].captions)))
    frames = torch.stack([clips.frames[scene] for scene in scenes for clips in versions.values()])
    captions = [f"{version}: {versions[CLEAN].captions[scene]}" for scene in scenes for version in versions]
    draw_contact_sheet(frames, captions, path, frames_per_clip=frames.shape[1])


def fault_figures(measures: Columns, severity: float) -> Figures:
    """How well the reprojection reward ranks clean clips above faulty ones, by kind and over "all" kinds.

    `auc`: P(clean > faulty) + P(equal) / 2 over all pairs of a clean and a faulty clip, by the geometry
    model. `exact_auc`: the same by the exact geometry of what is seen. `below_own`: the share of the faulty
    clips that score below the clean clip of their own scene.
    """
    figures: Figures = {"severity": severity}
    groups: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in FAULT_KINDS}
    for name, kinds in (groups | {"all": FAULT_KINDS}).items():
        found = {
            source: (
                measures[f"{CLEAN}/{source}/{REPROJECTION}"],
                np.stack([measures[f"{kind}/{source}/{REPROJECTION}"] for kind in kinds], axis=1),
            )
            for source in SOURCES
        }
        clean, faulty = found["predicted"]
        known = ~np.isnan(faulty - clean[:, None])
        figures[name] = {
            "auc": interval_figures(ranking(clean, faulty)),
            "exact_auc": number(ranking(*found["exact"]).mean),
            "below_own": number((faulty < clean[:, None])[known].mean()) if known.any() else None,
        }
    return figures


def ranking(clean: NDArray[np.float64], faulty: NDArray[np.float64]) -> Interval:
    """AUC of clean [N] above faulty [N, K] values; a row is a scene, and scenes are what is bootstrapped.

    `missing` counts the scenes of which a version could not be measured; their other versions enter.
    """

    def statistic(scenes: NDArray[np.int64]) -> float:
        high, low = clean[scenes], faulty[scenes].ravel()
        high, low = high[~np.isnan(high)], low[~np.isnan(low)]
        return auc(high, low) if len(high) and len(low) else float("nan")

    incomplete = np.isnan(clean) | np.isnan(faulty).any(axis=1)
    return replace(bootstrap_statistic(statistic, len(clean)), missing=int(incomplete.sum()))


def fault_rows(figures: Figures) -> Rows:
    """Those figures in words."""
    rows = []
    for name in (*FAULT_KINDS, "all"):
        found = figures[name]
        versions = "faulty clips of all kinds" if name == "all" else f"{name} ones"
        rows.append(
            (
                f"AUC of the reprojection reward, clean clips above {versions}",
                f"{interval(found['auc'], 3)}; share below the clean clip of their scene "
                f"{plain(found['below_own'], 2)}; AUC of the exact geometry {plain(found['exact_auc'], 3)}",
            )
        )
    return rows
