"""Every alarm fires on a history that has its fault, and none on noise or on a run that goes well."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from vggrpo.config import AlarmSettings
from vggrpo.evaluation import Alarm, Evaluated, EvaluationRecords, assess, paired_difference
from vggrpo.evaluation.alarms import (
    DIVERSITY_LOSS,
    KL_RUNAWAY,
    MEANINGS,
    MOTION_COLLAPSE,
    PIXEL_DRIFT,
    REWARDS_DIVERGE,
    WEIGHTED_SUM,
    held_out_faults,
)

WEIGHTS = {"camera_motion": 0.5, "reprojection": 0.5}
SETTINGS = AlarmSettings()
LEVELS = {
    "lgm/camera_motion": 0.70,
    "teacher/camera_motion": 0.66,
    "lgm/reprojection": 0.80,
    "teacher/reprojection": 0.78,
    "camera_extent": 0.31,
    "flow_drift": 0.87,
    "brightness": 0.5,
    "contrast": 0.2,
    "saturation": 0.4,
    "sharpness": 300.0,
    "object_presence": 0.15,
    "diversity": 0.12,
}
"""Of the base model's samples; each varies by 15 % between prompts and as much within one."""
PROMPTS, NOISES, SPREAD, JITTER = 32, 2, 0.15, 0.06
"""JITTER is what any update does to a sample, as a share of the level: the noise that must raise no alarm."""

Changes = Mapping[str, Sequence[float]]
"""By metric: its relative change at every evaluation after the base's."""


@dataclass(frozen=True)
class MadeRun:
    """A run's evaluations every ten iterations, with planted changes."""

    changes: Changes = field(default_factory=dict)
    evaluations: int = 4
    seed: int = 0
    prompts: int = PROMPTS

    @property
    def history(self) -> list[Evaluated]:
        rng = np.random.default_rng(self.seed)
        rows = self.prompts * NOISES
        base = {
            name: level
            * (1 + SPREAD * rng.normal(size=self.prompts).repeat(NOISES) + SPREAD * rng.normal(size=rows))
            for name, level in LEVELS.items()
        }
        history = [Evaluated(0, self.records(base))]
        for number in range(self.evaluations):
            columns = {}
            for name, values in base.items():
                change = self.changes.get(name, [0.0] * self.evaluations)[number]
                columns[name] = values + LEVELS[name] * (change + JITTER * rng.normal(size=rows))
            history.append(Evaluated(10 * (number + 1), self.records(columns)))
        return history

    def records(self, columns: Mapping[str, np.ndarray]) -> EvaluationRecords:
        rows = self.prompts * NOISES
        keys = {
            "prompt_id": [f"p{i // NOISES}" for i in range(rows)],
            "sample": [i % NOISES for i in range(rows)],
            "kind": ["static"] * rows,
            "prompt": [f"prompt {i // NOISES}" for i in range(rows)],
        }
        return EvaluationRecords(keys | {name: values.tolist() for name, values in columns.items()})

    def alarms(self, settings: AlarmSettings = SETTINGS, kl: Sequence[tuple[int, float]] = ()) -> list[Alarm]:
        """Of all evaluations, each judged when it was the newest."""
        history = self.history
        return [
            alarm
            for end in range(1, len(history) + 1)
            for alarm in assess(history[:end], kl, WEIGHTS, settings).alarms
        ]


def names(alarms: Sequence[Alarm]) -> set[str]:
    return {alarm.name for alarm in alarms}


FAULTS: dict[str, tuple[str, Changes]] = {
    "latent rewards up, teacher flat": (REWARDS_DIVERGE, {"lgm/camera_motion": [0.05, 0.08, 0.1, 0.12]}),
    "latent rewards up, teacher down": (
        REWARDS_DIVERGE,
        {"lgm/reprojection": [0.03, 0.04, 0.05, 0.05], "teacher/reprojection": [0.0, -0.03, -0.05, -0.08]},
    ),
    "camera stops": (MOTION_COLLAPSE, {"camera_extent": [0.0, -0.1, -0.25, -0.3]}),
    "nothing moves": (MOTION_COLLAPSE, {"flow_drift": [-0.1, -0.2, -0.3, -0.4]}),
    "darker": (PIXEL_DRIFT, {"brightness": [-0.02, -0.06, -0.12, -0.15]}),
    "washed out": (PIXEL_DRIFT, {"contrast": [-0.05, -0.1, -0.15, -0.2]}),
    "garish": (PIXEL_DRIFT, {"saturation": [0.0, 0.05, 0.1, 0.15]}),
    "noisy": (PIXEL_DRIFT, {"sharpness": [0.1, 0.2, 0.3, 0.4]}),
    "objects vanish": (PIXEL_DRIFT, {"object_presence": [0.0, -0.1, -0.2, -0.3]}),
    "all alike": (DIVERSITY_LOSS, {"diversity": [-0.1, -0.2, -0.3, -0.4]}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_raises_its_alarm_and_no_other(fault: str) -> None:
    name, changes = FAULTS[fault]
    for seed in range(5):
        alarms = MadeRun(changes, seed=seed).alarms()
        assert names(alarms) == {name}
        assert alarms[-1].iteration == 40, "it lasts to the end"
        subject = next(iter(changes)).removeprefix("lgm/")
        assert subject in alarms[-1].values
        assert subject in alarms[-1].sentence
        assert MEANINGS[name] in alarms[-1].sentence


def test_noise_raises_no_alarm_in_many_runs() -> None:
    assert [alarm.sentence for seed in range(40) for alarm in MadeRun(seed=seed).alarms()] == []


def test_a_run_that_goes_well_raises_no_alarm() -> None:
    """The teacher sees half of the gain; the picture and the motion change a little, as they do."""
    good = {
        "lgm/camera_motion": [0.02, 0.05, 0.08, 0.1],
        "teacher/camera_motion": [0.01, 0.025, 0.04, 0.05],
        "lgm/reprojection": [0.01, 0.02, 0.03, 0.04],
        "teacher/reprojection": [0.005, 0.01, 0.015, 0.02],
        "flow_drift": [-0.01, -0.02, -0.03, -0.05],
        "camera_extent": [-0.01, -0.02, -0.04, -0.06],
        "contrast": [-0.01, -0.01, -0.02, -0.02],
        "sharpness": [0.01, 0.02, 0.03, 0.03],
        "diversity": [-0.02, -0.04, -0.06, -0.08],
    }
    sentences = [alarm.sentence for seed in range(20) for alarm in MadeRun(good, seed=seed).alarms()]
    assert sentences == []


def test_one_faulty_evaluation_is_a_fault_but_no_alarm() -> None:
    run = MadeRun({"brightness": [0.0, -0.3, 0.0, -0.3]})
    assert run.alarms() == []
    judged = [assess(run.history[:end], [], WEIGHTS, SETTINGS) for end in range(1, 6)]
    assert [[fault.subject for fault in at.faults] for at in judged] == [
        [],
        [],
        ["brightness"],
        [],
        ["brightness"],
    ]
    at_once = run.alarms(AlarmSettings(evaluations=1))
    assert [alarm.iteration for alarm in at_once] == [20, 40]


def test_another_fault_of_the_same_name_does_not_make_it_last() -> None:
    run = MadeRun({"brightness": [-0.3, 0.0], "contrast": [0.0, -0.3]}, evaluations=2)
    assert run.alarms() == []
    both = MadeRun({"brightness": [-0.3, -0.3], "contrast": [0.0, -0.3]}, evaluations=2).alarms()
    assert [set(alarm.values) for alarm in both] == [{"brightness"}]


def test_the_last_evaluations_decide_and_an_alarm_can_end() -> None:
    run = MadeRun({"diversity": [-0.4, -0.4, -0.4, 0.0]})
    assert [alarm.iteration for alarm in run.alarms()] == [20, 30]


def test_a_large_but_uncertain_change_is_no_fault() -> None:
    """The mean is far below the floor, but it hangs on a few prompts."""
    run = MadeRun(evaluations=2)
    history = run.history
    for evaluated in history[1:]:
        values = evaluated.records.columns["flow_drift"]
        values[:8] = [0.0] * 8
        assert np.mean(values) < 0.9 * np.mean(history[0].records.columns["flow_drift"])
    assert assess(history, [], WEIGHTS, SETTINGS).faults == ()


def test_rewards_are_judged_one_by_one_and_by_their_weighted_sum() -> None:
    run = MadeRun({"lgm/camera_motion": [0.2] * 2, "lgm/reprojection": [0.1] * 2}, evaluations=2)
    (alarm,) = run.alarms()
    assert set(alarm.values) == {"camera_motion", "reprojection", WEIGHTED_SUM}
    history = run.history
    before, after = history[0].records, history[-1].records
    prompts = before.columns["prompt_id"]

    def summed(records: EvaluationRecords, source: str) -> np.ndarray:
        return 0.5 * records.values(f"{source}/camera_motion") + 0.5 * records.values(
            f"{source}/reprojection"
        )

    for source in ("lgm", "teacher"):
        expected = paired_difference(summed(before, source), summed(after, source), prompts)
        seen = alarm.values[WEIGHTED_SUM]
        assert seen[source] == pytest.approx(expected.mean)
        assert (seen[f"{source}_low"], seen[f"{source}_high"]) == pytest.approx((expected.low, expected.high))

    only = assess(history, [], {"reprojection": 1.0}, SETTINGS).alarms[0]
    assert set(only.values) == {"reprojection"}, "one reward is its own sum; the other is not trained on"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"teacher/camera_motion": [-0.1] * 4}, "the latent reward did not rise"),
        ({"lgm/camera_motion": [-0.1] * 4}, "it fell"),
        ({"lgm/camera_motion": [0.012] * 4}, "it rose by less than reward_gain of its spread"),
        ({"lgm/camera_motion": [0.1] * 4, "teacher/camera_motion": [0.05] * 4}, "the teacher follows"),
        ({"lgm/camera_motion": [0.1] * 4, "teacher/camera_motion": [0.03] * 4}, "not clearly below a third"),
    ],
)
def test_rewards_do_not_diverge_where(changes: Changes, why: str) -> None:
    alarms = [alarm for seed in range(5) for alarm in MadeRun(changes, seed=seed).alarms()]
    assert alarms == [], why


def test_failed_rewards_are_left_out_and_never_read_as_a_fall() -> None:
    run = MadeRun({"lgm/camera_motion": [0.1] * 2, "teacher/camera_motion": [0.08] * 2}, evaluations=2)
    history = run.history
    for evaluated in history[1:]:
        evaluated.records.columns["teacher/camera_motion"][::3] = [float("nan")] * len(range(0, 64, 3))
    assert assess(history, [], WEIGHTS, SETTINGS).faults == ()
    for evaluated in history[1:]:
        evaluated.records.columns["teacher/camera_motion"][:] = [float("nan")] * 64
    assert assess(history, [], WEIGHTS, SETTINGS).faults == (), "nothing is known, so nothing is said"


def test_with_too_few_prompts_only_the_kl_is_judged() -> None:
    dark = {"brightness": [-0.5] * 2}
    kl = [(iteration, 1.0) for iteration in range(1, 21)]
    assert names(MadeRun(dark, 2, prompts=7).alarms(kl=kl)) == {KL_RUNAWAY}
    assert names(MadeRun(dark, 2, prompts=8).alarms(kl=kl)) == {KL_RUNAWAY, PIXEL_DRIFT}


def test_rows_are_paired_whatever_their_order() -> None:
    history = MadeRun({"lgm/camera_motion": [0.1] * 2}, 2).history
    order = np.random.default_rng(1).permutation(PROMPTS * NOISES)
    shuffled = EvaluationRecords(
        {name: [column[i] for i in order] for name, column in history[-1].records.columns.items()}
    )
    base = history[0].records
    assert held_out_faults(base, shuffled, WEIGHTS, SETTINGS) == held_out_faults(
        base, history[-1].records, WEIGHTS, SETTINGS
    )


def kl_curve(means: Sequence[float], every: int = 10) -> list[tuple[int, float]]:
    """A KL that is `means[i]` on average between evaluations i and i + 1, and noisy."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0.5, 1.5, (len(means), every))
    noise /= noise.mean(1, keepdims=True)
    values = (np.array(means)[:, None] * noise).flatten()
    return [(iteration + 1, float(value)) for iteration, value in enumerate(values)]


@pytest.mark.parametrize(
    ("means", "raised_at"),
    [
        ([0.001, 0.002, 0.004, 0.008], []),
        ([0.0, 0.001, 0.01, 0.02], []),  # grows much, but from nothing to little
        ([0.03, 0.035, 0.04, 0.045], []),
        ([0.03, 0.06, 0.04, 0.03], []),  # above the limit once
        ([0.03, 0.06, 0.07, 0.03], [30]),
        ([0.005, 0.01, 0.03, 0.045], [30, 40]),  # below the limit, but on its way beyond
        ([0.06, 0.07, 0.08, 0.09], [20, 30, 40]),
    ],
)
def test_kl_runs_away_by_its_limit_or_its_growth(means: list[float], raised_at: list[int]) -> None:
    alarms = MadeRun().alarms(kl=kl_curve(means))
    assert [(alarm.name, alarm.iteration) for alarm in alarms] == [(KL_RUNAWAY, at) for at in raised_at]


def test_kl_values_that_are_missing_or_not_finite_are_left_out() -> None:
    kl = [(iteration, value) for iteration, value in kl_curve([0.01] * 4) if iteration % 2]
    kl += [(4, float("nan")), (14, float("inf"))]
    assert MadeRun().alarms(kl=kl) == []
    assert MadeRun().alarms(kl=[]) == []


def test_the_base_model_alone_raises_nothing() -> None:
    assessment = assess(MadeRun(evaluations=0).history, [], WEIGHTS, AlarmSettings(evaluations=1))
    assert (assessment.faults, assessment.alarms) == ((), ())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: assess([], [], WEIGHTS, SETTINGS), r"iterations \[\], expected 0 first"),
        (lambda h: assess(h[1:], [], WEIGHTS, SETTINGS), r"iterations \[10, 20\], expected 0 first"),
        (lambda h: assess([h[0], h[2], h[1]], [], WEIGHTS, SETTINGS), "and rising"),
        (lambda h: assess(h, [], {"depth": 1.0}, SETTINGS), "'lgm/depth' was not measured"),
        (
            lambda h: assess(
                [h[0], Evaluated(10, MadeRun(prompts=9).history[1].records)], [], WEIGHTS, SETTINGS
            ),
            "different samples",
        ),
    ],
)
def test_wrong_histories_are_named(call: Callable[[list[Evaluated]], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(MadeRun(evaluations=2).history)
