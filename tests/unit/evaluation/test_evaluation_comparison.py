import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vggrpo.evaluation import (
    METRICS,
    EvaluationRecords,
    compare,
    describe,
    paired_difference,
    reward_agreement,
    rows_of,
    spearman,
    summary,
)

MakeRecords = Callable[..., EvaluationRecords]


def shuffled(records: EvaluationRecords) -> EvaluationRecords:
    order = np.random.default_rng(0).permutation(len(records))
    return EvaluationRecords({name: [column[i] for i in order] for name, column in records.columns.items()})


def test_rows_are_paired_by_prompt_and_noise_whatever_their_order(make_records: MakeRecords) -> None:
    before, after = make_records(), make_records(teacher__motion=0.05)
    assert compare(before, shuffled(after)) == compare(before, after)
    row = rows_of(compare(before, after), "all")["teacher/motion"]
    expected = paired_difference(
        before.values("teacher/motion"), after.values("teacher/motion"), before.columns["prompt_id"]
    )
    assert row.change == expected
    assert row.change.mean == pytest.approx(row.after.mean - row.before.mean)
    assert row.spread == pytest.approx(before.values("teacher/motion").std())


def test_static_and_dynamic_prompts_are_kept_apart(make_records: MakeRecords) -> None:
    before, after = make_records(), make_records(flow_jerk=-0.1)
    half = len(before) // 2
    after.columns["flow_jerk"][:half] = before.columns["flow_jerk"][:half]
    rows = compare(before, after)
    assert list(dict.fromkeys(row.subset for row in rows)) == ["all", "static", "dynamic"]
    assert rows_of(rows, "static")["flow_jerk"].change.mean == 0
    assert rows_of(rows, "static")["flow_jerk"].change.count == half
    assert rows_of(rows, "dynamic")["flow_jerk"].verdict == "better"


def test_one_kind_or_unnamed_kinds_make_no_subset(make_records: MakeRecords) -> None:
    records = make_records()
    records.columns["kind"] = ["static" if i % 2 else "" for i in range(len(records))]
    assert {row.subset for row in compare(records, records)} == {"all"}


@pytest.mark.parametrize(
    ("metric", "shift", "verdict"),
    [
        ("teacher/motion", 0.1, "better"),
        ("teacher/motion", -0.1, "worse"),
        ("flow_jerk", 0.1, "worse"),
        ("flow_jerk", -0.1, "better"),
        ("saturation", 0.1, "higher"),
        ("saturation", -0.1, "lower"),
        ("flow_jerk", 0.0, "no clear change"),
    ],
)
def test_the_sign_of_the_interval_decides_the_verdict(
    make_records: MakeRecords, metric: str, shift: float, verdict: str
) -> None:
    rows = compare(make_records(), make_records(**{metric.replace("/", "__"): shift}))
    assert rows_of(rows, "all")[metric].verdict == verdict


def test_a_failed_reward_costs_its_pair_and_is_counted(make_records: MakeRecords) -> None:
    before, after = make_records(), make_records(teacher__motion=0.05)
    before.columns["teacher/motion"][0] = float("nan")
    row = rows_of(compare(before, after), "all")["teacher/motion"]
    assert (row.change.count, row.change.missing) == (len(before) - 1, 1)
    assert row.after.count == len(before)


def test_comparison_refuses_other_samples_metrics_or_kinds(make_records: MakeRecords) -> None:
    before = make_records()
    with pytest.raises(ValueError, match="different samples"):
        compare(before, make_records(prompts=11))
    fewer = make_records()
    del fewer.columns["flow_jerk"]
    with pytest.raises(ValueError, match="flow_jerk in one of them only"):
        compare(before, fewer)
    twice = make_records()
    twice.columns["sample"] = [0] * len(twice)
    with pytest.raises(ValueError, match="twice"):
        compare(twice, twice)
    before.columns["kind"] = ["all", "static"] * (len(before) // 2)
    with pytest.raises(ValueError, match='called "all"'):
        compare(before, before)


def test_agreement_is_the_rank_correlation_of_the_two_columns(make_records: MakeRecords) -> None:
    records = make_records()
    (entry,) = reward_agreement(records)
    assert entry.reward == "motion"
    expected = spearman(records.values("lgm/motion"), records.values("teacher/motion"))
    assert entry.correlation.mean == pytest.approx(expected)


def test_summary_has_every_metric(make_records: MakeRecords) -> None:
    records = make_records()
    result = summary(records)
    assert list(result) == records.metrics
    assert result["flow_jerk"].mean == pytest.approx(np.mean(records.columns["flow_jerk"]))


def test_records_survive_their_file_with_missing_values_as_null(
    make_records: MakeRecords, tmp_path: Path
) -> None:
    records = make_records(prompts=2)
    records.columns["flow_jerk"][1] = float("nan")
    records.save(tmp_path / "records.json")
    assert json.loads((tmp_path / "records.json").read_text())["columns"]["flow_jerk"][1] is None
    loaded = EvaluationRecords.load(tmp_path / "records.json")
    assert loaded.keys == records.keys
    np.testing.assert_array_equal(loaded.values("flow_jerk"), records.values("flow_jerk"))


def test_records_grow_by_rows_of_the_same_columns(make_records: MakeRecords) -> None:
    records = EvaluationRecords()
    part = make_records(prompts=2)
    records.extend(part)
    records.extend(part)
    assert len(records) == 8
    assert len(part) == 4
    del part.columns["flow_jerk"]
    with pytest.raises(ValueError, match="flow_jerk in one of the two only"):
        records.extend(part)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt_id": ["a"]}, "lack the column sample, kind, prompt"),
        (
            {"prompt_id": ["a"], "sample": [0], "kind": ["static"], "prompt": ["x"], "m": []},
            "different lengths",
        ),
    ],
)
def test_malformed_records_are_refused(columns: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationRecords(columns)


def test_a_metric_that_was_not_measured_is_named(make_records: MakeRecords) -> None:
    with pytest.raises(ValueError, match="'sharpness' was not measured; these were: lgm/motion"):
        make_records().values("sharpness")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(ValueError, match="holds no evaluation records"):
        EvaluationRecords.load(tmp_path / "x.json")


def test_rewards_of_any_name_are_described_by_their_source() -> None:
    assert describe("teacher/camera_motion").label == "Camera motion reward (teacher)"
    assert describe("lgm/camera_motion").better == "higher"
    with pytest.raises(ValueError, match="expected one of flow_jerk"):
        describe("flow_jrk")


def test_every_metric_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text("utf-8")
    for name in METRICS:
        assert f"`{name}`" in page, name
