import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vggrpo.config import CorruptFileError
from vggrpo.evaluation import (
    METRICS,
    EvaluationRecords,
    align_rows,
    bootstrap_ratio,
    compare,
    describe,
    gap_closed,
    paired_difference,
    reward_agreement,
    rows_of,
    spearman,
    summary,
    weighted_reward,
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


def test_the_closed_share_of_a_gap_is_the_change_over_the_distance(make_records: MakeRecords) -> None:
    before, after = make_records(), make_records(flow_jerk=-0.15)
    closed = gap_closed(before, shuffled(after), target=0.1)
    start, end = (np.mean(records.values("flow_jerk")) for records in (before, after))
    assert closed.mean == pytest.approx((start - end) / (start - 0.1))
    assert 0.2 < closed.low < closed.mean < closed.high < 0.4
    assert gap_closed(before, before, target=0.1).mean == 0
    further = gap_closed(before, make_records(flow_jerk=0.15), target=0.1)
    assert further.high < 0
    # A target above is approached by rising.
    assert gap_closed(before, after, target=2.0).high < 0


def test_a_gap_that_is_not_there_cannot_be_closed(make_records: MakeRecords) -> None:
    before = make_records()
    target = float(np.mean(before.values("flow_jerk"))) + 1e-3
    closed = gap_closed(before, make_records(flow_jerk=-0.15), target)
    assert np.isnan([closed.mean, closed.low, closed.high]).all()
    assert closed.count == len(before)


def test_a_gap_is_measured_on_samples_known_on_both_sides(make_records: MakeRecords) -> None:
    before, after = make_records(), make_records(flow_jerk=-0.15)
    before.columns["flow_jerk"][0] = after.columns["flow_jerk"][3] = float("nan")
    closed = gap_closed(before, after, 0.1)
    assert (closed.count, closed.missing) == (len(before) - 2, 2)
    known = [i for i in range(len(before)) if i not in (0, 3)]
    start, end = (records.values("flow_jerk")[known] for records in (before, after))
    assert closed.mean == pytest.approx((start - end).mean() / (start - 0.1).mean())


def test_rows_are_aligned_to_those_before(make_records: MakeRecords) -> None:
    before, after = make_records(), make_records(teacher__motion=0.05)
    assert align_rows(before, shuffled(after)).columns == after.columns
    with pytest.raises(ValueError, match="different samples"):
        align_rows(before, make_records(prompts=11))


def test_the_weighted_reward_is_a_mean_by_weight_and_missing_where_a_part_is(
    make_records: MakeRecords,
) -> None:
    records = make_records()
    records.columns["teacher/depth"] = [0.2] * len(records)
    records.columns["teacher/depth"][1] = float("nan")
    value = weighted_reward(records, "teacher", {"motion": 3.0, "depth": 1.0})
    expected = 0.75 * records.values("teacher/motion") + 0.25 * 0.2
    np.testing.assert_allclose(value[2:], expected[2:])
    assert np.isnan(value).tolist() == [False, True] + [False] * (len(records) - 2)
    with pytest.raises(ValueError, match="weights is empty"):
        weighted_reward(records, "teacher", {})
    with pytest.raises(ValueError, match="'lgm/depth' was not measured"):
        weighted_reward(records, "lgm", {"depth": 1.0})


def test_the_ratio_of_means_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    bottom = rng.lognormal(size=200)
    ratio = bootstrap_ratio(0.8 * bottom, bottom)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((0.8, 0.8, 0.8))
    top = 0.8 * bottom + 0.1 * rng.normal(size=200)
    uncertain = bootstrap_ratio(top, bottom)
    assert uncertain.mean == pytest.approx(top.mean() / bottom.mean())
    # The delta method: the residuals' standard error over the denominator.
    error = (top - uncertain.mean * bottom).std() / np.sqrt(200) / bottom.mean()
    assert (uncertain.high - uncertain.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_ratios_resample_clusters_leave_out_missing_pairs_and_need_a_denominator() -> None:
    top, bottom = np.array([1.0, 2.0, np.nan, 4.0]), np.array([2.0, 2.0, 1.0, np.nan])
    ratio = bootstrap_ratio(top, bottom, ["a", "b", "b", "c"])
    assert (ratio.mean, ratio.count, ratio.missing) == (0.75, 2, 2)
    assert (ratio.low, ratio.high) == (0.5, 1.0)
    assert np.isnan(bootstrap_ratio(top[:2], bottom[:2], ["a", "a"]).low)
    assert np.isnan(bootstrap_ratio([1.0, 2.0], [0.0, 0.0]).mean)
    assert np.isnan(bootstrap_ratio([], []).mean)


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


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[1]", "holds no evaluation records"),
        ('{"columns": {"prompt_id": ["a"', "is not valid JSON"),
        ('{"columns": {"prompt_id": ["a"]}}', "holds no evaluation records .records lack the column sample"),
        ('{"columns": {"flow_jerk": 3}}', "holds no evaluation records"),
    ],
)
def test_a_foreign_or_damaged_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CorruptFileError, match=rf"x\.json {complaint}"):
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
