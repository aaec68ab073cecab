"""The rows of the cost benchmark are valid trainings, and costs are summed up to where the target is met."""

from dataclasses import replace

import pytest
from harness.options import Options
from harness.workspace import Workspace
from training_cost import (
    ALL,
    CHECKS,
    LEASHED,
    LGM,
    PLAIN,
    TEACHER,
    CostRow,
    Training,
    as_text,
    cost_rows,
    pooled,
    row_figures,
)

from vggrpo.evaluation import EvaluationRecords
from vggrpo.flow import SigmaSchedule
from vggrpo.rollout import RolloutSteps


def records(*rewards):
    rows = len(rewards)
    keys = {"prompt_id": [f"p{i}" for i in range(rows)], "sample": [0] * rows}
    texts = {"kind": ["static"] * rows, "prompt": ["a"] * rows}
    checks = {name: [1.0] * rows for name in CHECKS}
    judged = {LGM: list(rewards), TEACHER: [0.5 * r for r in rewards]}
    return EvaluationRecords({**keys, **texts, **judged, **checks})


@pytest.fixture
def training():
    metrics = [
        {
            "cost/denoiser_forwards": 100.0,
            "cost/denoiser_backwards": 10.0 * (i + 1),
            "time/rollout": 1.0,
            "time/score": 0.5,
            "time/update": 2.0,
            "reward/camera_motion/std": 0.02,
            "group/frac_zero_std": 0.25,
        }
        for i in range(4)
    ]
    evaluations = [records(0.5, 0.5), records(0.5, 0.6), records(0.7, 0.7), records(0.6, 0.6)]
    return Training(0, [0, 1, 2, 4], evaluations, metrics)


@pytest.mark.parametrize("quick", [False, True])
def test_rows_are_valid_and_cost_what_they_promise(tmp_path, quick):
    workspace = Workspace(Options(output=tmp_path, quick=quick))
    recipe = workspace.policy_settings(tmp_path / "lgm")
    spent = {}
    for row in cost_rows(recipe, quick):
        s = workspace.policy_settings(tmp_path / "lgm", row.name, 0, row.changes)
        steps = RolloutSteps(
            SigmaSchedule.linear(s.train_steps),
            (s.sde_window.start, len(s.sde_window)),
            ode_solver=s.ode_solver,
            ode_stride=s.ode_stride,
        )
        each = 3 if s.kl_coef else 2
        passes = s.group_size * len(s.sde_window) * each
        if s.shared_noise:  # one pass serves a batch of members that stand at the same state
            passes -= (s.group_size - s.group_size // s.update_batch) * each
        held = min(s.off_window_members or s.group_size, s.group_size // s.updates_per_rollout)
        if s.off_window_coef:
            passes += 3 * held * s.updates_per_rollout
        spent[row.group] = steps.forwards(s.group_size, s.shared_noise) + passes
    alike = {PLAIN, "skip_flat_groups", "float32"}
    assert {spent[group] for group in alike} == {max(spent.values())}
    assert spent[ALL] == min(spent.values())
    assert all(cost < spent[PLAIN] for group, cost in spent.items() if group not in alike)
    if not quick:
        assert spent[ALL] < spent[LEASHED] < 0.15 * spent[PLAIN]


def test_costs_are_summed_up_to_the_first_evaluation_at_the_target(training):
    assert training.gain(1) == pytest.approx(0.05)
    assert training.first_at(0.15) == 2
    assert training.first_at(0.3) is None
    spent = training.spent(2)
    assert spent == {
        "iterations": 2,
        "forwards": 200.0,
        "backwards": 30.0,
        "evaluations": 230.0,
        "seconds": 7.0,
    }
    assert training.spent(3)["backwards"] == 100.0


def test_a_row_is_charged_as_a_share_of_plain_and_judged(training):
    quicker = replace(training, records=[training.records[0], training.records[2], *training.records[2:]])
    figures = row_figures(CostRow(ALL, {}), [quicker], [1], [training], [2])
    assert figures["reached"] == 1
    assert figures["share_of_plain"] == pytest.approx(110 / 230)
    assert figures["teacher_against_plain"].mean == 0.0
    assert figures["gains"][LGM].mean == pytest.approx(0.2)
    assert figures["checks"]["sharpness"].mean == 1.0
    assert figures["reward_std"] == {"reward/camera_motion/std": pytest.approx(0.02)}
    plain = row_figures(CostRow(PLAIN, {}), [training], [2], [training], [2])
    text = as_text({"target": 0.15, "rows": [plain, figures]})
    assert "| all   | 1/1     | 1          | 100      | 10        | 110         | 0.48     | 4 |" in text
    assert "target: FAIL; not below plain by the teacher: pass; " in text
    assert "not worse than plain's: pass." in text
    missed = row_figures(CostRow(ALL, {}), [quicker], [None], [training], [2])
    assert "| all   | 0/1     | -          |" in as_text({"target": 9.0, "rows": [plain, missed]})


def test_a_share_counts_only_where_the_plain_setting_arrived_too(training):
    plain = row_figures(CostRow(PLAIN, {}), [training, training], [2, None], [training, training], [2, None])
    metrics = [line | {"cost/denoiser_forwards": 1.0} for line in training.metrics]
    cheap = replace(training, records=[training.records[0], *training.records[2:]], metrics=metrics)
    figures = row_figures(CostRow(ALL, {}), [cheap, cheap], [1, 1], [training, training], [2, None])
    assert figures["share_of_plain"] < 0.4
    assert "target: FAIL;" in as_text({"target": 0.15, "rows": [plain, figures]})


def test_seeds_are_pooled_as_pairs_of_their_own():
    pairs = pooled([(records(0.5, 0.5), records(0.6, 0.7)), (records(0.2, 0.2), records(0.2, 0.3))])
    assert pairs.change(LGM).mean == pytest.approx(0.1)
    assert pairs.change(TEACHER).mean == pytest.approx(0.05)
