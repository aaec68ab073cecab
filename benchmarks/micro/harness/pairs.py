"""Paired changes of held-out samples by trainings with several seeds.

A sample of a policy is paired with the base model's of the same prompt and noise. The pairs of several seeds
are pooled by putting them one after another. Intervals resample whole prompts, with all noises and seeds of
each: they are about other prompts and noises. How much one training differs from the next shows in the seeds
apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vggrpo.evaluation import (
    EvaluationRecords,
    Interval,
    bootstrap_ratio,
    compare,
    gap_closed,
    paired_difference,
    rows_of,
)
from vggrpo.evaluation.comparison import align_rows

ALL = "all"
Policies = Mapping[int, EvaluationRecords]
"""The records of policies by the seed of their training."""


@dataclass(frozen=True)
class Change:
    """What trainings did to one metric."""

    base: Interval
    """Mean of the base model's samples."""
    policy: Interval
    """Mean of the policies' samples, of all seeds."""
    change: Interval
    """Mean of the paired differences, of all seeds."""
    ratio: Interval
    """Mean of the policies' samples over that of the base model's."""
    seeds: dict[int, Interval]
    """Mean of the paired differences, seed by seed."""


@dataclass(frozen=True)
class Pairs:
    """The same samples before and after, in the same order."""

    before: EvaluationRecords
    after: EvaluationRecords

    @classmethod
    def of(cls, base: EvaluationRecords, policies: Sequence[EvaluationRecords]) -> "Pairs":
        """The pairs of one policy or, pooled, of several.

        Raises:
            ValueError: if a policy was not measured on the base's samples.
        """
        aligned = [align_rows(base, policy) for policy in policies]
        return cls(_joined([base] * len(aligned)), _joined(aligned))

    def change(self, metric: str) -> Interval:
        """Mean of after - before."""
        return paired_difference(self.before.values(metric), self.after.values(metric), self._prompts)

    def ratio(self, metric: str) -> Interval:
        """mean(after) / mean(before)."""
        return bootstrap_ratio(self.after.values(metric), self.before.values(metric), self._prompts)

    def share(self, part: str, whole: str) -> Interval:
        """The gain of the metric `part` over that of `whole`; NaN where `whole` does not clearly gain."""
        if self.change(whole).sign <= 0:
            return Interval(float("nan"), float("nan"), float("nan"), len(self.before))
        gain, reference = (self.after.values(name) - self.before.values(name) for name in (part, whole))
        return bootstrap_ratio(gain, reference, self._prompts)

    def gap_closed(self, metric: str, target: float) -> Interval:
        """How much of the distance between before and `target` is gone after: 1 is at the target."""
        return gap_closed(self.before, self.after, target, metric)

    @property
    def _prompts(self) -> list[str]:
        return self.before.columns["prompt_id"]


def changes(base: EvaluationRecords, policies: Policies, kind: str = ALL) -> dict[str, Change]:
    """By metric, on all prompts or those of one kind."""
    base = of_kind(base, kind)
    kept = {seed: of_kind(policy, kind) for seed, policy in policies.items()}
    pooled = Pairs.of(base, list(kept.values()))
    rows = rows_of(compare(pooled.before, pooled.after), "all")
    single = {seed: Pairs.of(base, [policy]) for seed, policy in kept.items()}
    return {
        name: Change(
            row.before,
            row.after,
            row.change,
            pooled.ratio(name),
            {seed: pairs.change(name) for seed, pairs in single.items()},
        )
        for name, row in rows.items()
    }


def kinds(records: EvaluationRecords) -> list[str]:
    """ "all", and the kinds of prompt where there is more than one."""
    names = sorted(set(records.columns["kind"]), reverse=True)
    return [ALL, *names] if len(names) > 1 else [ALL]


def of_kind(records: EvaluationRecords, kind: str) -> EvaluationRecords:
    """The rows of one kind of prompt, or all."""
    keep = [row for row, name in enumerate(records.columns["kind"]) if kind in (ALL, name)]
    return EvaluationRecords(
        {name: [column[row] for row in keep] for name, column in records.columns.items()}
    )


def _joined(parts: Sequence[EvaluationRecords]) -> EvaluationRecords:
    """The rows of all parts, the samples numbered through: two parts hold the same prompts and noises."""
    columns = {name: [value for part in parts for value in part.columns[name]] for name in parts[0].columns}
    noises = 1 + max(parts[0].columns["sample"])
    columns["sample"] = [
        noises * number + sample for number, part in enumerate(parts) for sample in part.columns["sample"]
    ]
    return EvaluationRecords(columns)
