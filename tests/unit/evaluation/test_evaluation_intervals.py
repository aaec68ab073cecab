import numpy as np
import pytest
from scipy import stats

from vggrpo.evaluation import Interval, auc, bootstrap_mean, paired_difference, spearman, spearman_interval


def test_interval_of_independent_values_matches_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    intervals = [bootstrap_mean(rng.normal(0, 1, 40), resamples=500, seed=i) for i in range(300)]
    covered = np.mean([i.low <= 0 <= i.high for i in intervals])
    assert 0.90 <= covered <= 0.98


def test_repeating_every_value_within_its_cluster_narrows_nothing() -> None:
    values = np.random.default_rng(2).normal(size=30)
    clusters = [f"prompt {i}" for i in range(30)]
    single = bootstrap_mean(values, clusters)
    repeated = bootstrap_mean(np.tile(values, 4), clusters * 4)
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))
    naive = bootstrap_mean(np.tile(values, 4))
    assert naive.high - naive.low < 0.6 * (single.high - single.low)


def test_interval_does_not_depend_on_the_names_of_clusters() -> None:
    values = np.arange(6.0)
    assert bootstrap_mean(values, list("zzyyxx")) == bootstrap_mean(values, [1, 1, 2, 2, 3, 3])


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(3).normal(size=20)
    assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5)
    assert bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)


def test_missing_values_are_left_out_and_counted() -> None:
    interval = bootstrap_mean([1.0, float("nan"), 3.0])
    assert (interval.mean, interval.count, interval.missing) == (2.0, 2, 1)
    empty = bootstrap_mean([float("nan")])
    assert np.isnan(empty.mean)
    assert (empty.count, empty.missing, empty.sign) == (0, 1, 0)


def test_one_cluster_has_a_mean_but_no_interval() -> None:
    interval = bootstrap_mean([1.0, 2.0], ["only", "only"])
    assert interval.mean == 1.5
    assert np.isnan(interval.low)
    assert interval.sign == 0


def test_what_an_interval_lacks_is_null_in_json() -> None:
    assert Interval(0.5, 0.25, 0.75, 8, 1).as_json() == {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    assert bootstrap_mean([0.5]).as_json() == {"mean": 0.5, "low": None, "high": None, "n": 1}
    assert bootstrap_mean([]).as_json() == {"mean": None, "low": None, "high": None, "n": 0}


def test_paired_difference_removes_what_the_pairs_share() -> None:
    rng = np.random.default_rng(4)
    before = rng.normal(0, 10, 50)
    after = before + 0.2 + rng.normal(0, 0.1, 50)
    change = paired_difference(before, after)
    assert change.mean == pytest.approx((after - before).mean())
    assert change.sign == 1
    assert paired_difference(after, before).sign == -1


def test_a_pair_with_one_missing_side_is_left_out() -> None:
    change = paired_difference([1.0, 2.0, 3.0], [2.0, float("nan"), 4.0])
    assert (change.mean, change.count, change.missing) == (1.0, 2, 1)


@pytest.mark.parametrize(
    ("low", "high", "sign"), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0)]
)
def test_sign_needs_the_whole_interval_on_one_side(low: float, high: float, sign: int) -> None:
    assert Interval(0.0, low, high, 10).sign == sign


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_agrees_with_scipy(ties: bool) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=60), rng.normal(size=60)
    b += a
    if ties:
        a, b = a.round(), b.round()
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_spearman_ignores_pairs_with_a_missing_value() -> None:
    nan = float("nan")
    assert spearman([1, 2, 3, nan, 5], [1, 2, 3, -100, nan]) == pytest.approx(1.0)


def test_spearman_does_not_exist_where_a_side_is_constant() -> None:
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert np.isnan(spearman([1], [1]))


def test_spearman_interval_surrounds_the_correlation() -> None:
    rng = np.random.default_rng(6)
    a = rng.normal(size=80)
    b = a + rng.normal(size=80)
    interval = spearman_interval(a, b)
    assert interval.low < interval.mean < interval.high
    assert interval.mean == pytest.approx(spearman(a, b))
    fisher = 1.96 * 1.03 / np.sqrt(80 - 3)
    assert np.arctanh(interval.mean) - np.arctanh(interval.low) == pytest.approx(fisher, rel=0.35)


def test_auc_agrees_with_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(7)
    positive, negative = rng.normal(0.7, 1, 31).round(1), rng.normal(0, 1, 44).round(1)
    expected = stats.mannwhitneyu(positive, negative).statistic / (31 * 44)
    assert auc(positive, negative) == pytest.approx(expected)
    assert auc([2, 3], [0, 1]) == 1.0
    assert auc([0, 1], [0, 1]) == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auc([], [1.0]), "positive is empty"),
        (lambda: auc([1.0], [float("nan")]), "negative holds NaN"),
        (lambda: bootstrap_mean([[1.0]]), "values has shape"),
        (lambda: bootstrap_mean([1.0], ["a", "b"]), "clusters has 2 entries for 1"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "must be pairs"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
