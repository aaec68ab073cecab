"""The share of signal in gradients, against what they were made of."""

import pytest
import torch
from gradient_signal import as_text, signal


def drawn(signal_length, count, seed=0, size=2000):
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(size, generator=generator)
    noise = torch.randn(count, size, generator=generator)
    return signal_length * direction + noise


def test_the_signal_is_what_the_gradients_share():
    assert signal(drawn(0.5, 40)).mean == pytest.approx(0.25 / 1.25, abs=0.02)
    assert signal(torch.ones(5, 3)).mean == pytest.approx(1.0)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert signal(opposite).mean == pytest.approx(-1 / 3)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Gradients of pure noise, of 30 parameters, so that the estimate spreads."""
    found = [signal(drawn(0.0, 16, seed, size=30)) for seed in range(200)]
    covered = sum(each.low <= 0.0 <= each.high for each in found) / len(found)
    assert 0.85 <= covered <= 0.99
    assert abs(sum(each.mean for each in found) / len(found)) < 0.005


def test_a_row_without_a_signal_says_no_number_of_groups():
    row = {"evaluations": 80.0, "seconds": 2.0}
    rows = {"a": {"signal": signal(drawn(0.5, 40)), **row}, "b": {"signal": signal(drawn(0.0, 40)), **row}}
    lines = as_text({"groups": 40, "rows": rows}).splitlines()
    assert "| 4 " in lines[-2]
    assert "| - " in lines[-1]
