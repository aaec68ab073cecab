"""Paired changes of several seeds, against loops that share no code with them."""

import math

import numpy as np
import pytest
from harness.checks import checks
from harness.pairs import Pairs, changes, kinds, of_kind

from vggrpo.evaluation import EvaluationRecords

METRICS = (
    *("lgm/camera_motion", "teacher/camera_motion", "lgm/reprojection", "teacher/reprojection"),
    *("flow_jerk", "camera_path", "camera_extent", "flow_magnitude", "flow_drift"),
    *("brightness", "saturation", "sharpness", "object_presence"),
)
PROMPTS, NOISES = 40, 2
KEYS = [(f"p{prompt}", noise) for prompt in range(PROMPTS) for noise in range(NOISES)]


def records(rng, order=None, **gains):
    """Metrics that share a level within a prompt, so that its samples are not independent."""
    order = range(len(KEYS)) if order is None else order
    columns = {
        "prompt_id": [KEYS[row][0] for row in order],
        "sample": [KEYS[row][1] for row in order],
        "kind": [("static", "dynamic")[int(KEYS[row][0][1:]) % 2] for row in order],
        "prompt": [KEYS[row][0] for row in order],
    }
    for metric in METRICS:
        level = np.repeat(rng.normal(1.0, 0.1, PROMPTS), NOISES) + rng.normal(0, 0.02, len(KEYS))
        columns[metric] = (level + gains.get(metric, 0.0))[list(order)].tolist()
    return EvaluationRecords(columns)


@pytest.fixture
def measured():
    """The base model and three policies, one of them in another order."""
    rng = np.random.default_rng(1)
    order = rng.permutation(len(KEYS)).tolist()
    base = records(rng)
    return base, {0: records(rng), 1: records(rng, order), 2: records(rng)}


def by_key(measurement, metric):
    return dict(zip(measurement.keys, measurement.values(metric), strict=True))


def naive_interval(statistic, base, policies, metric, resamples=3000):
    """Percentiles of a statistic of (before, after) over drawn prompts, each with all its pairs."""
    before = by_key(base, metric)
    after = [by_key(policy, metric) for policy in policies.values()]
    pairs = {
        f"p{prompt}": [
            (before[f"p{prompt}", noise], policy[f"p{prompt}", noise])
            for policy in after
            for noise in range(NOISES)
        ]
        for prompt in range(PROMPTS)
    }
    rng = np.random.default_rng(7)
    values = []
    for _ in range(resamples):
        drawn = [pair for number in rng.integers(PROMPTS, size=PROMPTS) for pair in pairs[f"p{number}"]]
        values.append(statistic(*np.array(drawn).T))
    return np.quantile(values, [0.025, 0.975])


def test_pooled_changes_and_their_intervals(measured):
    base, policies = measured
    change = changes(base, policies)["flow_jerk"]
    expected = [
        np.mean([by_key(policy, "flow_jerk")[key] - by_key(base, "flow_jerk")[key] for key in KEYS])
        for policy in policies.values()
    ]
    assert [change.seeds[seed].mean for seed in (0, 1, 2)] == pytest.approx(expected)
    assert change.change.mean == pytest.approx(np.mean(expected))
    assert change.change.count == 3 * len(KEYS)
    ends = naive_interval(lambda a, b: (b - a).mean(), base, policies, "flow_jerk")
    assert [change.change.low, change.change.high] == pytest.approx(ends, abs=0.003)


def test_pooled_ratios_and_their_intervals(measured):
    base, policies = measured
    ratio = changes(base, policies)["camera_path"].ratio
    before = base.values("camera_path").mean()
    assert ratio.mean == pytest.approx(
        np.mean([policy.values("camera_path").mean() for policy in policies.values()]) / before
    )
    ends = naive_interval(lambda a, b: b.mean() / a.mean(), base, policies, "camera_path")
    assert [ratio.low, ratio.high] == pytest.approx(ends, abs=0.003)


def test_more_seeds_of_the_same_policy_do_not_narrow_the_interval(measured):
    base, policies = measured
    one, three = (changes(base, dict.fromkeys(range(n), policies[0]))["flow_jerk"].change for n in (1, 3))
    assert (three.low, three.high) == pytest.approx((one.low, one.high))


def test_kinds_of_prompts_stand_apart(measured):
    base, policies = measured
    assert kinds(base) == ["all", "static", "dynamic"]
    rows = [row for row, kind in enumerate(base.columns["kind"]) if kind == "dynamic"]
    change = changes(base, {0: policies[0]}, "dynamic")["sharpness"]
    assert change.base.mean == pytest.approx(base.values("sharpness")[rows].mean())
    assert change.change.count == len(rows)
    assert kinds(of_kind(base, "static")) == ["all"]


def test_the_share_of_a_gain(measured):
    base, _ = measured
    values = {metric: base.values(metric) for metric in METRICS}
    values["lgm/reprojection"] = values["lgm/reprojection"] + 0.2
    values["teacher/reprojection"] = values["teacher/reprojection"] + 0.05
    keys = {name: base.columns[name] for name in ("prompt_id", "sample", "kind", "prompt")}
    policy = EvaluationRecords(keys | {name: column.tolist() for name, column in values.items()})
    pairs = Pairs.of(base, [policy])
    assert pairs.share("teacher/reprojection", "lgm/reprojection").mean == pytest.approx(0.25)
    assert math.isnan(pairs.share("teacher/camera_motion", "lgm/camera_motion").mean)


def test_what_failed_is_left_out_and_counted(measured):
    base, policies = measured
    policies[0].columns["lgm/reprojection"][5] = math.nan
    change = changes(base, {0: policies[0]})["lgm/reprojection"].change
    kept = [key for row, key in enumerate(KEYS) if row != 5]
    first, second = (by_key(part, "lgm/reprojection") for part in (base, policies[0]))
    assert change.mean == pytest.approx(np.mean([second[key] - first[key] for key in kept]))
    assert (change.count, change.missing) == (len(KEYS) - 1, 1)


def test_policies_on_other_samples_are_refused(measured):
    base, policies = measured
    fewer = of_kind(policies[0], "static")
    with pytest.raises(ValueError, match="different samples"):
        Pairs.of(base, [fewer])


def verdicts(base, gains, target=0.5):
    """Which checks pass for a policy that adds `gains` to the base model's own samples."""
    columns = {name: list(values) for name, values in base.columns.items()}
    for name, gain in gains.items():
        columns[name] = [value + gain for value in columns[name]]
    return {row.name: row.passed for row in checks(base, {0: EvaluationRecords(columns)}, target)}


def test_the_bars(measured):
    base, _ = measured
    good = {
        "lgm/camera_motion": 0.2,
        "teacher/camera_motion": 0.1,
        "lgm/reprojection": 0.2,
        "teacher/reprojection": 0.1,
        "flow_jerk": -0.15,
    }
    assert all(verdicts(base, good).values())
    failures = {
        "camera motion by the LGM: change": {"lgm/camera_motion": 0.0},
        "camera motion by the teacher: change of the worst seed": {"teacher/camera_motion": -0.1},
        "reprojection: the teacher's share of the LGM's gain": {"teacher/reprojection": 0.06},
        "flow jerk: share of the gap to steady real clips closed": {"flow_jerk": -0.1},
        "camera path: share of the base's": {"camera_path": -0.12},
        "sharpness: share of the base's": {"sharpness": 0.07},
    }
    for name, change in failures.items():
        assert not verdicts(base, good | change)[name], name


def test_one_seed_that_loses_fails_the_bar(measured):
    base, _ = measured
    up, down = (
        EvaluationRecords(
            base.columns | {"teacher/reprojection": (base.values("teacher/reprojection") + gain).tolist()}
        )
        for gain in (0.2, -0.01)
    )
    rows = {row.name: row.passed for row in checks(base, {0: up, 1: down}, 0.5)}
    assert rows["reprojection by the teacher: change"]
    assert not rows["reprojection by the teacher: change of the worst seed"]
