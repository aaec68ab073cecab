"""Operations with finite gradients where the textbook form has none."""

import torch

from vggrpo.geometry import lower_quantile, masked_mean, masked_median, safe_norm


def test_safe_norm_is_the_norm_and_differentiable_at_zero() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    length = safe_norm(x)
    length.sum().backward()
    assert length.tolist() == [5, 0]
    assert torch.allclose(x.grad, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_masked_mean_ignores_what_is_masked_even_nan() -> None:
    values = torch.tensor([[1.0, torch.nan, 3.0], [torch.nan, torch.inf, 5.0]], requires_grad=True)
    keep = torch.tensor([[True, False, True], [False, False, False]])
    mean = masked_mean(values, keep, dim=1)
    mean.sum().backward()
    assert mean.tolist() == [2, 0]
    assert values.grad is not None
    assert values.grad.tolist() == [[0.5, 0, 0.5], [0, 0, 0]]


def test_masked_median_picks_the_lower_middle_with_gradient() -> None:
    values = torch.tensor([[4.0, 1.0, 9.0, 2.0]], requires_grad=True)
    median = masked_median(values, torch.tensor([[True, True, False, True]]))
    median.sum().backward()
    assert median.item() == 2
    assert values.grad is not None
    assert values.grad.tolist() == [[0, 0, 0, 1]]
    assert masked_median(values, torch.zeros(1, 4, dtype=torch.bool)).isnan().all()


def test_lower_quantile_against_torch() -> None:
    values = torch.randn(3, 4, 25)
    for fraction in (0.0, 0.1, 0.5, 0.999, 1.0):
        expected = torch.quantile(values.flatten(1), fraction, dim=1, interpolation="lower")
        assert torch.equal(lower_quantile(values, fraction), expected)
