"""Before against after: paired changes with intervals, and the agreement of latent and teacher rewards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggrpo.evaluation.catalogue import Metric, describe
from vggrpo.evaluation.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    paired_difference,
    spearman_interval,
)
from vggrpo.evaluation.records import EvaluationRecords


@dataclass(frozen=True)
class Comparison:
    """One metric on one subset of the held-out samples."""

    metric: Metric
    subset: str
    """"all", or the kind of prompt: "static", "dynamic"."""
    before: Interval
    after: Interval
    change: Interval
    """Mean of the paired differences after - before; the interval resamples whole prompts."""
    spread: float
    """Standard deviation over the samples before: the scale on which a change is large or small."""

    @property
    def verdict(self) -> str:
        """What the interval of the change allows to be said.

        "better", "worse" (or "higher", "lower" for a metric that is only watched), or "no clear change".
        """
        if self.change.sign == 0:
            return "no clear change"
        if self.metric.better == "watch":
            return "higher" if self.change.sign > 0 else "lower"
        return "better" if (self.change.sign > 0) == (self.metric.better == "higher") else "worse"


def compare(before: EvaluationRecords, after: EvaluationRecords, seed: int = 0) -> list[Comparison]:
    """Every metric on all samples and, where there is more than one, on each named kind of prompt apart.

    Rows are paired by (prompt_id, sample): the same prompt and the same initial noise.

    Raises:
        ValueError: if the two do not hold the same samples and metrics, or a kind is called "all".
    """
    order = _pairing(before, after)
    if set(before.metrics) != set(after.metrics):
        different = sorted(set(before.metrics) ^ set(after.metrics))
        raise ValueError(
            f"before and after were measured differently: {', '.join(different)} in one of them only"
        )
    kinds = np.array(before.columns["kind"])
    prompts = before.columns["prompt_id"]
    names = [name for name in dict.fromkeys(before.columns["kind"]) if name]
    if "all" in names:
        raise ValueError(
            'a kind of prompt is called "all", which names the whole set; call it something else'
        )
    subsets = {"all": np.ones(len(kinds), dtype=bool)}
    if len(names) > 1:
        subsets |= {name: kinds == name for name in sorted(names, key=lambda n: (n != "static", n))}
    rows = []
    for subset, mask in subsets.items():
        clusters = [prompt for prompt, keep in zip(prompts, mask, strict=True) if keep]
        for name in before.metrics:
            first, second = before.values(name)[mask], after.values(name)[order][mask]
            rows.append(
                Comparison(
                    describe(name),
                    subset,
                    bootstrap_mean(first, clusters, seed=seed),
                    bootstrap_mean(second, clusters, seed=seed),
                    paired_difference(first, second, clusters, seed=seed),
                    float(np.nanstd(first)) if np.isfinite(first).any() else float("nan"),
                )
            )
    return rows


def summary(records: EvaluationRecords, seed: int = 0) -> dict[str, Interval]:
    """The mean of every metric over all samples, with its interval."""
    clusters = records.columns.get("prompt_id", [])
    return {name: bootstrap_mean(records.values(name), clusters, seed=seed) for name in records.metrics}


def gap_closed(
    before: EvaluationRecords,
    after: EvaluationRecords,
    target: float,
    metric: str = "flow_jerk",
    seed: int = 0,
) -> Interval:
    """How much of the distance between `before` and a target the change to `after` covers.

        ( mean before - mean after ) / ( mean before - target )

    1 is at the target, 0 no change, below 0 further away. The interval resamples whole prompts; the target
    counts as exact. Only samples measured on both sides enter. Everything is NaN where `before` is not
    clearly apart from the target (its interval holds it): there is no gap to close.

    Args:
        before, after: records of the same prompts and noises.
        target: the value to reach, such as the metric's mean on steady real clips.
        metric: name of the metric.
        seed: of the bootstrap.

    Raises:
        ValueError: if the two do not hold the same samples, or not the metric.
    """
    first, second = before.values(metric), align_rows(before, after).values(metric)
    measured = np.where(np.isnan(second), np.nan, first)
    prompts = before.columns["prompt_id"]
    gap = bootstrap_mean(measured - target, prompts, seed=seed)
    if gap.sign == 0:
        return Interval(float("nan"), float("nan"), float("nan"), gap.count, gap.missing)
    return bootstrap_ratio(first - second, measured - target, prompts, seed=seed)


def weighted_reward(
    records: EvaluationRecords, source: str, weights: Mapping[str, float]
) -> NDArray[np.float64]:
    """The weighted mean [N] of the rewards "<source>/<name>"; NaN where one of them failed.

    Args:
        records: of an evaluation.
        source: "lgm" or "teacher".
        weights: of the rewards, by name; positive.

    Raises:
        ValueError: if there are no weights, or a reward was not measured.
    """
    if not weights:
        raise ValueError("weights is empty; give the weight of at least one reward")
    terms = [weight * records.values(f"{source}/{name}") for name, weight in weights.items()]
    return np.sum(terms, axis=0) / sum(weights.values())


def align_rows(before: EvaluationRecords, after: EvaluationRecords) -> EvaluationRecords:
    """The rows of `after` in the order of those of `before`, by prompt and noise.

    Raises:
        ValueError: if the two do not hold the same samples.
    """
    order = _pairing(before, after)
    return EvaluationRecords({name: [column[i] for i in order] for name, column in after.columns.items()})


@dataclass(frozen=True)
class Agreement:
    """One reward through the latent geometry model against the same through its teacher, by sample."""

    reward: str
    latent: list[float]
    teacher: list[float]
    correlation: Interval
    """Spearman's rank correlation; the interval resamples whole prompts."""


def reward_agreement(records: EvaluationRecords, seed: int = 0) -> list[Agreement]:
    """One entry for every reward measured both on latents ("lgm/...") and by the teacher ("teacher/...")."""
    entries = []
    for name in records.metrics:
        source, _, reward = name.partition("/")
        if source != "lgm" or f"teacher/{reward}" not in records.columns:
            continue
        latent, teacher = records.values(name), records.values(f"teacher/{reward}")
        correlation = spearman_interval(latent, teacher, records.columns["prompt_id"], seed=seed)
        entries.append(Agreement(reward, latent.tolist(), teacher.tolist(), correlation))
    return entries


def rows_of(comparisons: Sequence[Comparison], subset: str) -> dict[str, Comparison]:
    """The rows of one subset by metric name."""
    return {row.metric.name: row for row in comparisons if row.subset == subset}


def _pairing(before: EvaluationRecords, after: EvaluationRecords) -> list[int]:
    """For every row of `before`, the row of `after` with the same prompt and noise."""
    place = {key: i for i, key in enumerate(after.keys)}
    if len(place) != len(after) or len(set(before.keys)) != len(before):
        raise ValueError("records hold the same (prompt_id, sample) twice; each sample may occur once")
    if place.keys() != set(before.keys):
        different = sorted(place.keys() ^ set(before.keys))
        raise ValueError(
            f"before and after hold different samples ({len(different)} in one of them only, first "
            f"{different[0]}); evaluate both on the same prompts and noises"
        )
    return [place[key] for key in before.keys]
