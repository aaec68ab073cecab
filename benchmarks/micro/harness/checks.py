"""The bars that a training on the micro family is held to, each with its figure and whether it is met."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.pairs import Pairs, Policies
from harness.results import figure, markdown_table
from vggrpo.evaluation import EvaluationRecords, Interval, describe
from vggrpo.training.rewards import CAMERA_MOTION, REPROJECTION

REWARDS = (CAMERA_MOTION, REPROJECTION)
TEACHER_SHARE = 1 / 3
GAP_SHARE = 0.25
MOTION_FLOOR = 0.9
PIXEL_BAND = 0.05
MOTION_AMOUNTS = ("camera_path", "camera_extent", "flow_magnitude", "flow_drift")
PIXELS = ("brightness", "saturation", "sharpness", "object_presence")


@dataclass(frozen=True)
class Check:
    """One bar."""

    name: str
    bar: str
    figure: Interval
    passed: bool


def checks(base: EvaluationRecords, policies: Policies, steady_flow_jerk: float) -> list[Check]:
    """Every bar, on the samples of all seeds pooled.

    Args:
        base: of the base model.
        policies: of the trained ones, by seed.
        steady_flow_jerk: mean flow jerk of steady real clips.
    """
    pooled = Pairs.of(base, list(policies.values()))
    rows = []
    for reward in REWARDS:
        rows += _reward_checks(base, policies, pooled, reward)
    closed = pooled.gap_closed("flow_jerk", steady_flow_jerk)
    rows.append(
        Check(
            "flow jerk: share of the gap to steady real clips closed",
            f">= {GAP_SHARE:g}",
            closed,
            closed.mean >= GAP_SHARE,
        )
    )
    for metric in MOTION_AMOUNTS:
        ratio = pooled.ratio(metric)
        passed = ratio.mean >= MOTION_FLOOR
        rows.append(Check(f"{_label(metric)}: share of the base's", f">= {MOTION_FLOOR:g}", ratio, passed))
    low, high = 1 - PIXEL_BAND, 1 + PIXEL_BAND
    for metric in PIXELS:
        ratio = pooled.ratio(metric)
        passed = low <= ratio.mean <= high
        rows.append(Check(f"{_label(metric)}: share of the base's", f"{low:g} to {high:g}", ratio, passed))
    return rows


def _reward_checks(base: EvaluationRecords, policies: Policies, pooled: Pairs, reward: str) -> list[Check]:
    """Up by the latent geometry model; up by the teacher, in every seed, and by enough."""
    name, latent, teacher = reward.replace("_", " "), f"lgm/{reward}", f"teacher/{reward}"
    by_lgm, by_teacher = pooled.change(latent), pooled.change(teacher)
    singles = [Pairs.of(base, [policy]).change(teacher) for policy in policies.values()]
    worst = min(singles, key=lambda change: -math.inf if math.isnan(change.mean) else change.mean)
    share = pooled.share(teacher, latent)
    return [
        Check(f"{name} by the LGM: change", "interval above 0", by_lgm, by_lgm.sign > 0),
        Check(f"{name} by the teacher: change", "interval above 0", by_teacher, by_teacher.sign > 0),
        Check(f"{name} by the teacher: change of the worst seed", "above 0", worst, worst.mean > 0),
        Check(f"{name}: the teacher's share of the LGM's gain", ">= 1/3", share, share.mean >= TEACHER_SHARE),
    ]


def check_table(rows: Sequence[Check]) -> str:
    """The bars as markdown."""
    return markdown_table(
        ("check", "bar", "figure [95 % interval]", ""),
        [(row.name, row.bar, figure(row.figure), "pass" if row.passed else "FAIL") for row in rows],
    )


def _label(metric: str) -> str:
    label = describe(metric).label
    return label[0].lower() + label[1:]
