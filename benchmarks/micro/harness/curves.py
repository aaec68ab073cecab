"""How held-out figures move while a policy trains, by its run's own evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.pairs import Pairs
from harness.workspace import PolicyRun
from vggrpo.evaluation import Interval
from vggrpo.training.align import evaluations_so_far


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation against that of the base model."""

    iteration: int
    changes: Mapping[str, Interval]
    """Mean of the paired differences, by metric."""


def held_out_curve(run: PolicyRun, metrics: Sequence[str]) -> list[CurvePoint]:
    """Every evaluation of a finished run but the base model's.

    They are on the prompts of its settings, by ODE in `infer_steps`, not on the captions of the yardstick.
    """
    base, *later = evaluations_so_far(run.settings, run.settings.iterations)
    points = []
    for evaluated in later:
        pairs = Pairs.of(base.records, [evaluated.records])
        points.append(CurvePoint(evaluated.iteration, {name: pairs.change(name) for name in metrics}))
    return points
