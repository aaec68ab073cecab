"""Win rates of pairs whose outcome is counted by hand."""

import numpy as np
import pytest

from vggrpo.evaluation.win_rates import win_rate

NAN = float("nan")


def test_counts_by_hand() -> None:
    found = win_rate([1.0, 2.0, 3.0, 5.0, NAN, 1.0], [0.0, 2.0, 4.0, 1.0, 1.0, NAN])
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.rate.mean == pytest.approx((2 + 0.5) / 4)
    assert (found.rate.count, found.rate.missing) == (4, 2)
    assert found.as_json()["n"] == 4


def test_a_margin_makes_ties() -> None:
    values, reference = np.array([0.3, 0.1, -0.1, -0.3]), np.zeros(4)
    found = win_rate(values, reference, tie=0.1)
    assert (found.wins, found.ties, found.losses) == (1, 2, 1)
    assert found.rate.mean == 0.5


@pytest.mark.parametrize("tie", [0.0, 0.2])
def test_sides_and_direction_are_symmetric(tie: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 60)).round(1)
    forth, back = win_rate(a, b, tie=tie), win_rate(b, a, tie=tie)
    assert forth.rate.mean + back.rate.mean == pytest.approx(1)
    assert (forth.wins, forth.ties, forth.losses) == (back.losses, back.ties, back.wins)
    lower = win_rate(a, b, better="lower", tie=tie)
    assert (lower.wins, lower.ties, lower.losses) == (back.wins, back.ties, back.losses)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(200):
        wins = rng.random(80) < 0.7
        rate = win_rate(wins.astype(float), np.full(80, 0.5)).rate
        covered.append(rate.low <= 0.7 <= rate.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.05)


def test_the_interval_resamples_prompts() -> None:
    # Ten seeds of a prompt that all agree are one piece of evidence, not ten.
    outcome = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], 10)
    prompts = np.repeat(list("abcdef"), 10).tolist()
    apart = win_rate(outcome, np.full(60, 0.5)).rate
    together = win_rate(outcome, np.full(60, 0.5), prompts).rate
    assert together.mean == apart.mean
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_nothing_to_compare_has_no_rate() -> None:
    found = win_rate([NAN, 1.0], [1.0, NAN])
    assert found.as_json() == {
        "mean": None,
        "low": None,
        "high": None,
        "n": 0,
        "wins": 0,
        "ties": 0,
        "losses": 0,
    }


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="must be pairs"):
        win_rate([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="tie is -1"):
        win_rate([1.0], [1.0], tie=-1)
