"""From measured rollouts to the figures of a noise setting, and from those to the recommended one.

Every rollout has a twin: the ODE's sample of the same prompt from the same initial noise. What the stochastic
steps did is the difference of the two.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vggrpo.config import NoiseCell
from vggrpo.evaluation import Interval, LatentProfile, bootstrap_mean, bootstrap_statistic, latent_shift
from vggrpo.training.advantages import ZERO_STD, group_statistics

Measures = Mapping[str, Tensor]
"""Of the G groups of a cell, K samples each: "reward/<name>" [G, K], "valid" [G, K]; "latent/<moment>" of
`latent_moments`, [G, C] or [G]; and, where samples were decoded, "pixels/<statistic>" [G]."""

LATENT, PIXELS, REWARD = "latent/", "pixels/", "reward/"


@dataclass(frozen=True)
class ScoreScale:
    """How several rewards become one score: the weighted mean of their z-scores.

        score = sum_r w_r (r - mean_r) / std_r / sum_r w_r

    with mean and population std over all of the ODE's valid samples, so that scores of all cells compare.
    """

    weights: Mapping[str, float]
    mean: Mapping[str, float]
    std: Mapping[str, float]
    """0 for a reward that is constant, whose z-score is 0."""

    @classmethod
    def of(cls, ode: Measures, weights: Mapping[str, float]) -> "ScoreScale":
        """The scale of the ODE's samples.

        Raises:
            ValueError: if none of them is valid.
        """
        if not ode["valid"].any():
            raise ValueError(
                "the rewards failed on every ODE sample, so that rollouts cannot be compared with them; the "
                "latent geometry model does not understand this video model's samples"
            )
        values = {name: ode[REWARD + name][ode["valid"]].double() for name in weights}
        mean = {name: float(value.mean()) for name, value in values.items()}
        std = {name: float(value.std(correction=0)) for name, value in values.items()}
        constant = {name: std[name] <= ZERO_STD * max(1.0, abs(mean[name])) for name in weights}
        return cls(weights, mean, {name: 0.0 if constant[name] else std[name] for name in weights})

    def score(self, measures: Measures) -> Tensor:
        """[G, K], float64; NaN where a sample is not valid."""
        total = torch.zeros(measures["valid"].shape, dtype=torch.float64)
        for name, weight in self.weights.items():
            if self.std[name]:
                total += weight * (measures[REWARD + name].double() - self.mean[name]) / self.std[name]
        return torch.where(measures["valid"], total / sum(self.weights.values()), torch.nan)


def cell_figures(
    measures: Measures, ode: Measures, scale: ScoreScale, prompts: Sequence[str]
) -> dict[str, Interval]:
    """The figures of a cell, each with its 95 % bootstrap interval over prompts.

    - "reward/<name>/mean", "reward/<name>/std": mean; population std within a group, averaged over groups.
    - "score/std": the same of the score.
    - "exploration": std within a group of the score's change from the ODE's sample to its twin, averaged over
      groups. 0 if the rollouts are the ODE's samples; sqrt(std^2 + std_ODE^2), of the "score/std" of both,
      once a rollout has nothing to do with its twin.
    - "loss": mean score of the ODE's samples minus that of their twins.
    - "informative", "invalid": share of groups with a reward that is not constant; share of failed samples.
    - "latent/shift": `latent_shift` from the ODE's latents; "latent/roughness": overall roughness over the
      ODE's; "latent/extreme": share of extreme values.
    - "pixels/<statistic>": relative change of the statistic's mean against the ODE's.

    Args:
        measures: of the cell, G groups of K samples.
        ode: of the ODE, the same groups.
        scale: of the score.
        prompts: G, ids.
    """
    valid, both = measures["valid"], measures["valid"] & ode["valid"]
    rewards = {name: measures[REWARD + name] for name in scale.weights}
    score = scale.score(measures)
    change = score - scale.score(ode)
    clusters = [prompt for prompt in prompts for _ in range(valid.shape[1])]

    figures: dict[str, Interval] = {}
    groups = _by_group(rewards | {"score": score}, valid)
    for name, reward in rewards.items():
        values = torch.where(valid, reward, torch.nan).flatten()
        figures[f"reward/{name}/mean"] = bootstrap_mean(values.numpy(), clusters)
        figures[f"reward/{name}/std"] = bootstrap_mean(groups[f"reward/{name}/std"])
    figures["score/std"] = bootstrap_mean(groups["reward/score/std"])
    figures["exploration"] = bootstrap_mean(_by_group({"change": change}, both)["reward/change/std"])
    figures["loss"] = bootstrap_mean(-change.flatten().numpy(), clusters)
    constant = _by_group(rewards, valid)["group/frac_zero_std"]
    figures["informative"] = bootstrap_mean([1.0 - share for share in constant])
    figures["invalid"] = bootstrap_mean(groups["group/frac_invalid"])
    return figures | _latent_figures(measures, ode) | _pixel_figures(measures, ode)


def _by_group(rewards: Mapping[str, Tensor], valid: Tensor) -> dict[str, list[float]]:
    """`group_statistics` of every group alone; NaN where a group has no valid sample."""
    names = [f"reward/{name}/std" for name in rewards] + ["group/frac_zero_std", "group/frac_invalid"]
    rows = [
        group_statistics({name: reward[[g]] for name, reward in rewards.items()}, valid[[g]])
        for g in range(len(valid))
    ]
    return {name: [row.get(name, math.nan) for row in rows] for name in names}


def _latent_figures(measures: Measures, ode: Measures) -> dict[str, Interval]:
    ours, theirs = (
        {name.removeprefix(LATENT): m[name].double().numpy() for name in m if name.startswith(LATENT)}
        for m in (measures, ode)
    )
    count = len(ours["extreme"])

    def profiles(rows: Any) -> tuple[LatentProfile, LatentProfile]:
        pooled = [{name: moment[rows].mean(axis=0) for name, moment in m.items()} for m in (theirs, ours)]
        return LatentProfile.of(pooled[0]), LatentProfile.of(pooled[1])

    def roughness(rows: Any) -> float:
        before, after = profiles(rows)
        return _ratio(after.overall_roughness, before.overall_roughness)

    return {
        "latent/shift": bootstrap_statistic(lambda rows: latent_shift(*profiles(rows)), count),
        "latent/roughness": bootstrap_statistic(roughness, count),
        "latent/extreme": bootstrap_mean(ours["extreme"]),
    }


def _pixel_figures(measures: Measures, ode: Measures) -> dict[str, Interval]:
    figures = {}
    for name in (name for name in measures if name.startswith(PIXELS)):
        ours, theirs = measures[name].double().numpy(), ode[name].double().numpy()

        def change(rows: Any, ours: Any = ours, theirs: Any = theirs) -> float:
            return _ratio(float(ours[rows].mean()), float(theirs[rows].mean())) - 1.0

        figures[name] = bootstrap_statistic(change, len(ours))
    return figures


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else math.nan


@dataclass(frozen=True)
class NoiseRow:
    """A cell of the grid (or the ODE) with its figures."""

    cell: NoiseCell
    figures: Mapping[str, Interval]


@dataclass(frozen=True)
class NoiseTuning:
    """The measured grid and what follows from it."""

    rows: tuple[NoiseRow, ...]
    """The ODE first, then the grid in its order."""
    tolerance: float
    latent_tolerance: float

    @property
    def rule(self) -> str:
        """How the recommended cell is chosen."""
        return (
            "the largest exploration among the settings whose loss is at most "
            f"{self.tolerance:g} and whose latent shift is at most {self.latent_tolerance:g}, both by the "
            "upper end of their 95 % interval; of equals the one with fewer stochastic steps"
        )

    def within_tolerance(self, row: NoiseRow) -> bool:
        """Whether loss and latent shift are small enough; not if either is unknown."""
        loss, shift = row.figures["loss"], row.figures["latent/shift"]
        return loss.high <= self.tolerance and shift.high <= self.latent_tolerance

    @property
    def recommended(self) -> NoiseRow | None:
        """The row that the rule chooses, if any is within the tolerances."""
        acceptable = [row for row in self.rows[1:] if self.within_tolerance(row)]
        return max(
            acceptable, key=lambda row: (row.figures["exploration"].mean, -row.cell.length), default=None
        )

    @property
    def sentence(self) -> str:
        """The recommendation in words."""
        row = self.recommended
        if row is None:
            return (
                f"no setting has loss and latent shift within the tolerances ({self.tolerance:g} and "
                f"{self.latent_tolerance:g}): try smaller noise scales or shorter windows, more prompts for "
                "narrower intervals, or other tolerances (--resume --tolerance X measures nothing again)"
            )
        return f"recommended: vggrpo train {row.cell.flags}"

    def as_dict(self) -> dict[str, Any]:
        """Everything, fit for JSON; None for what could not be measured."""
        chosen = self.recommended
        return {
            "recommended": None if chosen is None else _cell_settings(chosen.cell),
            "rule": self.rule,
            "tolerance": self.tolerance,
            "latent_tolerance": self.latent_tolerance,
            "cells": [
                {"cell": row.cell.name, **_cell_settings(row.cell)}
                | {"within_tolerance": self.within_tolerance(row), "recommended": row is chosen}
                | {"figures": {name: _plain(interval) for name, interval in row.figures.items()}}
                for row in self.rows
            ],
        }

    def as_csv(self) -> str:
        """A line a cell; every figure with the ends of its interval, empty where unknown."""
        lines = []
        for entry in self.as_dict()["cells"]:
            figures = entry.pop("figures")
            for name, interval in figures.items():
                entry |= {name: interval["mean"]}
                entry |= {f"{name}/{end}": interval[end] for end in ("low", "high")}
            lines.append(entry)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return text.getvalue()


def summarise(
    measured: Mapping[NoiseCell, Measures],
    weights: Mapping[str, float],
    prompts: Sequence[str],
    tolerance: float,
    latent_tolerance: float,
) -> NoiseTuning:
    """The figures of all cells, of which the first is the ODE.

    Raises:
        ValueError: if the rewards failed on every ODE sample.
    """
    ode = next(iter(measured.values()))
    scale = ScoreScale.of(ode, weights)
    rows = [
        NoiseRow(cell, cell_figures(measures, ode, scale, prompts)) for cell, measures in measured.items()
    ]
    return NoiseTuning(tuple(rows), tolerance, latent_tolerance)


def _cell_settings(cell: NoiseCell) -> dict[str, str | float | int]:
    """The cell as settings of `vggrpo train`."""
    return {
        "transition": cell.transition,
        "noise_scale": cell.noise_scale,
        "sde_window_start": cell.start,
        "sde_window_length": cell.length,
    }


def _plain(interval: Interval) -> dict[str, float | int | None]:
    ends = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    known = {name: value if np.isfinite(value) else None for name, value in ends.items()}
    return known | {"count": interval.count, "missing": interval.missing}
