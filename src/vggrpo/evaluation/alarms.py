"""Alarms: what can be wrong with a training whose rewards rise.

Each is a small rule on the held-out evaluations so far, against the base model's, pair by pair of prompt and
noise. A rule finds a *fault* where a whole interval lies beyond its threshold; a fault that is there in the
last k evaluations in a row raises the *alarm*. One noisy value can do neither.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vggrpo.config import AlarmSettings
from vggrpo.evaluation.comparison import align_rows, weighted_reward
from vggrpo.evaluation.intervals import Interval, bootstrap_mean, bootstrap_ratio, paired_difference
from vggrpo.evaluation.records import EvaluationRecords

REWARDS_DIVERGE = "rewards_diverge"
MOTION_COLLAPSE = "motion_collapse"
PIXEL_DRIFT = "pixel_drift"
DIVERSITY_LOSS = "diversity_loss"
KL_RUNAWAY = "kl_runaway"

MEANINGS = {
    REWARDS_DIVERGE: "The policy earns reward through errors of the latent geometry model; its videos get "
    "better by less, or not at all",
    MOTION_COLLAPSE: "Steadiness is being bought by moving less",
    PIXEL_DRIFT: "Reward is being earned with other-looking pictures: look at the sample videos",
    DIVERSITY_LOSS: "The samples of one prompt become alike: the policy collapses",
    KL_RUNAWAY: "The policy leaves the base model faster than the KL holds it: lower lr, or raise kl_coef",
}
"""Every alarm by its name: what it means."""

MOTION_AMOUNTS = ("camera_extent", "flow_drift")
"""Amounts that a camera keeps when it only stops shaking; path and flow magnitude fall with the shake."""
PIXELS = ("brightness", "contrast", "saturation", "sharpness", "object_presence")
WEIGHTED_SUM = "weighted sum"
"""Stands for all rewards together."""


@dataclass(frozen=True)
class Evaluated:
    """One held-out evaluation of a run."""

    iteration: int
    """Iterations done; 0 is the base model."""
    records: EvaluationRecords


@dataclass(frozen=True)
class Fault:
    """What one rule objects to at one evaluation."""

    alarm: str
    subject: str
    """The reward or metric."""
    words: str
    values: dict[str, float]

    @property
    def key(self) -> tuple[str, str]:
        """Faults of two evaluations with the same key are the same fault, lasting."""
        return self.alarm, self.subject


@dataclass(frozen=True)
class Alarm:
    """A fault that lasted."""

    iteration: int
    name: str
    sentence: str
    """What was seen, with its values, and what it means."""
    values: dict[str, dict[str, float]]
    """By subject: the figures that raised it."""


@dataclass(frozen=True)
class Assessment:
    """What the rules say about a run after its newest evaluation."""

    faults: tuple[Fault, ...] = ()
    """At the newest evaluation, whether or not they lasted."""
    alarms: tuple[Alarm, ...] = ()


@dataclass(frozen=True)
class _Comparison:
    """An evaluation beside the base's, its rows in the same order."""

    before: EvaluationRecords
    after: EvaluationRecords
    prompts: list[str]

    def ratio(self, metric: str) -> Interval:
        """Mean after over mean before."""
        return bootstrap_ratio(self.after.values(metric), self.before.values(metric), self.prompts)


def assess(
    history: Sequence[Evaluated],
    kl: Iterable[tuple[int, float]],
    weights: Mapping[str, float],
    settings: AlarmSettings,
) -> Assessment:
    """Applies every rule.

    Args:
        history: all evaluations so far, the base model's first.
        kl: (iteration, `policy/kl`) of the run's iterations.
        weights: of the rewards that the policy is trained on, by name.
        settings: thresholds.

    Raises:
        ValueError: if the history does not start at 0 and rise, or its records do not hold the same samples
            or not the metrics.
    """
    iterations = [evaluated.iteration for evaluated in history]
    if not iterations or iterations[0] != 0 or any(b <= a for a, b in pairwise(iterations)):
        raise ValueError(f"history has the iterations {iterations}, expected 0 first and rising")
    base, *later = history
    if not later:
        return Assessment()
    recent = later[-settings.evaluations :]
    found = [held_out_faults(base.records, evaluated.records, weights, settings) for evaluated in recent]
    newest = list(found[-1])
    lasting = []
    if len(recent) == settings.evaluations:
        everywhere = set.intersection(*({fault.key for fault in faults} for faults in found))
        lasting = [fault for fault in newest if fault.key in everywhere]
    runaway = kl_faults(iterations, kl, settings)
    return Assessment(
        tuple(newest + runaway),
        tuple(_alarms(iterations[-1], lasting, settings.evaluations) + _alarms(iterations[-1], runaway, 1)),
    )


def held_out_faults(
    base: EvaluationRecords,
    records: EvaluationRecords,
    weights: Mapping[str, float],
    settings: AlarmSettings,
) -> list[Fault]:
    """The faults of one evaluation against the base's; none with fewer than `least_prompts` prompts.

    Raises:
        ValueError: if the two do not hold the same samples, or lack a metric. Diversity alone may be absent.
    """
    prompts = base.columns["prompt_id"]
    compared = _Comparison(base, align_rows(base, records), prompts)
    if len(set(prompts)) < settings.least_prompts:
        return []
    faults = [
        *_reward_faults(compared, weights, settings),
        *(_shrunk(compared, name, MOTION_COLLAPSE, settings.motion_floor) for name in MOTION_AMOUNTS),
        *(_drifted(compared, name, settings.pixel_band) for name in PIXELS),
    ]
    if "diversity" in base.metrics:
        faults.append(_shrunk(compared, "diversity", DIVERSITY_LOSS, settings.diversity_floor))
    return [fault for fault in faults if fault is not None]


def kl_faults(
    iterations: Sequence[int], kl: Iterable[tuple[int, float]], settings: AlarmSettings
) -> list[Fault]:
    """Whether the KL ran away: means over the iterations from each evaluation to the next.

    It did if the mean is above `kl_limit` in each of the last k intervals; or if it is above half of that and
    more than `kl_growth` times what it was k intervals before. Values that are not finite are left out.

    Args:
        iterations: of the evaluations, from 0.
        kl: (iteration, `policy/kl`).
        settings: thresholds.
    """
    values = [(iteration, value) for iteration, value in kl if np.isfinite(value)]
    means = []
    for start, end in pairwise(iterations):
        inside = [value for iteration, value in values if start < iteration <= end]
        means.append(float(np.mean(inside)) if inside else float("nan"))
    last, lasting = settings.evaluations, means[-settings.evaluations :]
    if len(lasting) == last and all(mean > settings.kl_limit for mean in lasting):
        lasted = f", for {last} evaluations in a row" if last > 1 else ""
        words = (
            f"the KL per step averages {means[-1]:.3g} since the evaluation before, above "
            f"{settings.kl_limit:g}{lasted}"
        )
        return [Fault(KL_RUNAWAY, "policy/kl", words, {"kl": means[-1], "limit": settings.kl_limit})]
    if len(means) <= last:
        return []
    now, then = means[-1], means[-1 - last]
    if now > settings.kl_limit / 2 and now > settings.kl_growth * then:
        words = f"the KL per step rose from {then:.3g} to {now:.3g} over the last {last} evaluations"
        return [Fault(KL_RUNAWAY, "policy/kl", words, {"kl": now, "kl_before": then})]
    return []


def _reward_faults(
    compared: _Comparison, weights: Mapping[str, float], settings: AlarmSettings
) -> list[Fault | None]:
    """Per reward, and for the weighted sum where there is more than one."""
    subjects = {name: {name: 1.0} for name in weights}
    if len(weights) > 1:
        subjects[WEIGHTED_SUM] = dict(weights)
    return [_diverged(compared, subject, parts, settings) for subject, parts in subjects.items()]


def _diverged(
    compared: _Comparison, subject: str, weights: Mapping[str, float], settings: AlarmSettings
) -> Fault | None:
    """The latent reward is clearly up, and the teacher's is down or follows by too little."""
    latent, latent_after = (
        weighted_reward(records, "lgm", weights) for records in (compared.before, compared.after)
    )
    teacher, teacher_after = (
        weighted_reward(records, "teacher", weights) for records in (compared.before, compared.after)
    )
    gain = paired_difference(latent, latent_after, compared.prompts)
    if gain.sign <= 0 or gain.mean < settings.reward_gain * float(np.nanstd(latent)):
        return None
    seen = paired_difference(teacher, teacher_after, compared.prompts)
    lag = (teacher_after - teacher) - settings.reward_share * (latent_after - latent)
    if seen.sign >= 0 and bootstrap_mean(lag, compared.prompts).sign >= 0:
        return None
    verdict = "it fell" if seen.sign < 0 else f"clearly less than {settings.reward_share:.0%} of that"
    words = (
        f"{subject} gained {_signed(gain)} by the latent geometry model, but "
        f"{_signed(seen)} by the teacher on decoded video, {verdict}"
    )
    return Fault(REWARDS_DIVERGE, subject, words, _named("lgm", gain) | _named("teacher", seen))


def _shrunk(compared: _Comparison, metric: str, alarm: str, floor: float) -> Fault | None:
    """A metric is clearly below a share of the base's."""
    ratio = compared.ratio(metric)
    if not ratio.high < floor:
        return None
    return Fault(alarm, metric, f"{_share(metric, ratio)}, below {floor:.0%}", _named("ratio", ratio))


def _drifted(compared: _Comparison, metric: str, band: float) -> Fault | None:
    """A metric is clearly outside a band around the base's."""
    ratio = compared.ratio(metric)
    if not (ratio.high < 1 - band or ratio.low > 1 + band):
        return None
    words = f"{_share(metric, ratio)}, outside {1 - band:.0%} to {1 + band:.0%}"
    return Fault(PIXEL_DRIFT, metric, words, _named("ratio", ratio))


def _alarms(iteration: int, faults: Sequence[Fault], evaluations: int) -> list[Alarm]:
    """One alarm for all faults of a name."""
    alarms = []
    for name, meaning in MEANINGS.items():
        own = [fault for fault in faults if fault.alarm == name]
        if not own:
            continue
        lasted = f", for {evaluations} evaluations in a row" if evaluations > 1 else ""
        sentence = (
            f"{name} after {iteration} iterations{lasted}: {'; '.join(f.words for f in own)}. {meaning}."
        )
        alarms.append(Alarm(iteration, name, sentence, {fault.subject: fault.values for fault in own}))
    return alarms


def _named(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _signed(change: Interval) -> str:
    return f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def _share(metric: str, ratio: Interval) -> str:
    return f"{metric} is {ratio.mean:.0%} [{ratio.low:.0%}, {ratio.high:.0%}] of the base's"
