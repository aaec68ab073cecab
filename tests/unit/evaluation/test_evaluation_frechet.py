"""The Fréchet distance against closed forms and scipy, and the features it is measured on."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from tiny_models import tiny_any4d_config
from vggrpo.backbones.any4d import Any4D
from vggrpo.evaluation import (
    PrincipalComponents,
    clip_features,
    frechet_distance,
    gaussian_frechet,
    place_on_scale,
)


def covariance(rng: np.random.Generator, size: int, rank: int) -> np.ndarray:
    factor = rng.normal(size=(size, rank))
    return factor @ factor.T


def test_gaussians_on_one_axis_have_the_textbook_distance() -> None:
    """(m - n)^2 + (s - t)^2."""
    one = np.array([[1.0]])
    assert gaussian_frechet(np.array([1.0]), np.array([4.0]), 4 * one, 25 * one) == pytest.approx(9 + 9)
    axes = np.diag([1.0, 9.0]), np.diag([4.0, 1.0])
    assert gaussian_frechet(np.zeros(2), np.array([3.0, 4.0]), *axes) == pytest.approx(25 + 1 + 4)


@pytest.mark.parametrize("seed", range(3))
def test_correlated_gaussians_agree_with_the_matrix_square_root(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = covariance(rng, 6, 9), covariance(rng, 6, 9)
    means = rng.normal(size=(2, 6))
    root = sqrtm(first @ second).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(first + second - 2 * root)
    assert gaussian_frechet(*means, first, second) == pytest.approx(expected)
    assert gaussian_frechet(*means[::-1], second, first) == pytest.approx(expected)


def test_singular_covariances_have_a_distance() -> None:
    """Commuting ones: the sum of (sqrt a - sqrt b)^2 over their common directions."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    a, b = np.array([4.0, 1.0, 0, 0, 0]), np.array([0, 9.0, 1.0, 0, 0])
    covariances = (basis * a) @ basis.T, (basis * b) @ basis.T
    expected = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert gaussian_frechet(np.zeros(5), np.zeros(5), *covariances) == pytest.approx(expected)


def test_a_set_is_at_no_distance_from_itself_and_shifts_count_squared() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 4))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(rows, rows + 2) == pytest.approx(16)
    assert frechet_distance(rows, 3 * (rows - rows.mean(0)) + rows.mean(0)) == pytest.approx(
        4 * np.trace(np.cov(rows, rowvar=False))
    )


def test_distances_do_not_depend_on_order_or_orientation() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(90, 5)), rng.normal(1, 2, size=(70, 5))
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    expected = frechet_distance(first, second)
    assert frechet_distance(second[::-1], first) == pytest.approx(expected)
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(expected)


def test_principal_components_are_those_of_the_reference_set() -> None:
    rng = np.random.default_rng(2)
    hidden = rng.normal(size=(400, 2)) * [3.0, 1.0]
    loadings, _ = np.linalg.qr(rng.normal(size=(6, 2)))
    features = 100 + hidden @ loadings.T * 5.0 + 1e-3 * rng.normal(size=(400, 6))
    axes = PrincipalComponents.fit(features, components=2)
    coordinates = axes(features)
    assert coordinates.shape == (400, 2)
    standard = (features - features.mean(0)) / features.std(0)
    assert coordinates.var(0).sum() == pytest.approx(standard.var(0).sum(), rel=1e-3)
    assert np.corrcoef(coordinates.T)[0, 1] == pytest.approx(0, abs=1e-9)
    assert axes(2 * features - 100).std(0) == pytest.approx(2 * coordinates.std(0))


def test_units_of_features_do_not_matter_and_constant_ones_count_for_nothing() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(50, 4))
    units = np.array([1.0, 1000.0, 0.01, 5.0])
    plain, scaled = PrincipalComponents.fit(features), PrincipalComponents.fit(features * units)
    np.testing.assert_allclose(np.abs(plain(features)), np.abs(scaled(features * units)), atol=1e-9)
    with_constant = np.column_stack([features, np.full(50, 7.0)])
    wider = PrincipalComponents.fit(with_constant)(with_constant)
    assert np.abs(wider[:, 4]).max() < 1e-12
    np.testing.assert_allclose(np.abs(wider[:, :4]), np.abs(plain(features)), atol=1e-9)


def test_few_clips_have_few_components() -> None:
    features = np.random.default_rng(4).normal(size=(5, 30))
    assert PrincipalComponents.fit(features)(features).shape == (5, 4)


def test_scale_runs_from_one_end_to_the_other() -> None:
    assert place_on_scale(2.0, 2.0, 10.0) == 0
    assert place_on_scale(10.0, 2.0, 10.0) == 1
    assert place_on_scale(4.0, 2.0, 10.0) == 0.25
    assert np.isnan(place_on_scale(4.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def geometry() -> Any4D:
    model = Any4D(tiny_any4d_config())
    model.reset_parameters(depth=3.0, generator=torch.Generator().manual_seed(0))
    return model.eval()


def test_features_are_statistics_of_the_last_tokens(geometry: Any4D) -> None:
    frames = torch.rand(2, 3, 16, 24, 3, generator=torch.Generator().manual_seed(1))
    features = clip_features(geometry, frames)
    assert features.shape == (2, 48)
    tokens = geometry.tokens_at(frames, ["F"])["F"][0].double().detach().numpy()
    for row in range(2):
        expected = [tokens[row].mean((0, 1)), tokens[row].std(1).mean(0), tokens[row].std(0).mean(0)]
        np.testing.assert_allclose(features[row].numpy(), np.concatenate(expected), atol=1e-5)


def test_a_clip_without_motion_has_no_spread_over_views(geometry: Any4D) -> None:
    still = torch.rand(1, 1, 16, 16, 3, generator=torch.Generator().manual_seed(2)).expand(-1, 4, -1, -1, -1)
    changing = torch.rand(1, 4, 16, 16, 3, generator=torch.Generator().manual_seed(2))
    assert clip_features(geometry, still)[:, 32:].max() < 1e-5
    assert clip_features(geometry, changing)[:, 32:].min() > 1e-3


def test_wrong_sets_are_named() -> None:
    rows = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"a has shape \(3,\), expected at least two rows"):
        frechet_distance(rows[0], rows)
    with pytest.raises(ValueError, match="a has 3 columns and b has 2"):
        frechet_distance(rows, rows[:, :2])
    with pytest.raises(ValueError, match="b holds numbers that are not finite"):
        frechet_distance(rows, np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="features have 2 columns, but the fit had 3"):
        PrincipalComponents.fit(np.eye(3))(rows[:, :2])
