"""The streamed closed-form connector against independent regressions and against the convolution it
initialises."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vggrpo.lgm import Connector, RidgeStatistics, fit_ridge, token_grid, unfold_latents
from vggrpo.lgm import ridge as ridge_module

KERNEL = (3, 3, 3)


def clips(count: int = 6, channels: int = 2, views: int = 3, height: int = 6, width: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, views, height, width, generator=generator)


def tokens_of(latents: Tensor, width: int = 4, seed: int = 1) -> Tensor:
    """Tokens that depend on the latents (not linearly), on the position, and on noise."""
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv3d(latents.shape[1], width, KERNEL, stride=(1, 2, 2), padding=1)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        features = conv(latents).permute(0, 2, 3, 4, 1).flatten(2, 3)
        features = features + features.tanh() + torch.randn(1, 1, *features.shape[2:], generator=generator)
        return features + 0.1 * torch.randn(features.shape, generator=generator)


def slow_rows(latents: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> np.ndarray:
    """The receptive field of every token, read off element by element, zeros outside."""
    batch, channels, views, height, width = latents.shape
    h, w = token_grid(height, width, stride)
    rows = np.zeros((batch, views, h, w, channels, *kernel))
    values = latents.numpy()
    for index in np.ndindex(*rows.shape):
        b, t, y, x, c, *offset = index
        centre = (t * stride[0], y * stride[1], x * stride[2])
        i, j, k = (centre[d] + offset[d] - kernel[d] // 2 for d in range(3))
        if 0 <= i < views and 0 <= j < height and 0 <= k < width:
            rows[index] = values[b, c, i, j, k]
    return rows


def test_unfolded_latents_are_the_zero_padded_receptive_fields() -> None:
    latents = clips(count=2, views=2, height=3, width=4)
    for kernel, stride in (((3, 3, 3), (1, 2, 2)), ((5, 5, 5), (1, 2, 2)), ((1, 3, 5), (1, 1, 3))):
        np.testing.assert_array_equal(
            unfold_latents(latents, kernel, stride).numpy(),
            slow_rows(latents, kernel, stride).astype(np.float32),
        )


@pytest.mark.parametrize("size", [(5, 6), (6, 7), (1, 2)])
def test_unfolded_latents_times_the_weights_are_the_convolution_at_borders_too(size: tuple[int, int]) -> None:
    """The same padding in the fit as in the layer: a fit on other padding would be wrong in the outer
    tokens."""
    latents = clips(height=size[0], width=size[1])
    connector = Connector(2, 4, token_grid(*size))
    rows = unfold_latents(latents).flatten(4)
    expected = rows @ connector.conv.weight.flatten(1).T + connector.conv.bias
    tokens, _ = connector(latents)
    torch.testing.assert_close(tokens, expected.flatten(2, 3), rtol=1e-5, atol=1e-5)


def numpy_ridge(rows: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge with a free bias, as an ordinary least-squares problem with penalty rows: [D + 1, width]."""
    dim = rows.shape[1]
    centred = rows - rows.mean(0)
    penalty = ridge * (centred**2).sum() / dim
    system = np.concatenate(
        [
            np.concatenate([rows, np.ones((len(rows), 1))], axis=1),
            np.concatenate([np.sqrt(penalty) * np.eye(dim), np.zeros((dim, 1))], axis=1),
        ]
    )
    right = np.concatenate([targets, np.zeros((dim, targets.shape[1]))])
    return np.linalg.lstsq(system, right, rcond=None)[0]


@pytest.mark.parametrize("ridge", [1e-8, 1e-3, 1.0])
def test_solution_equals_least_squares(ridge: float) -> None:
    latents = clips()
    tokens = tokens_of(latents)
    position = torch.randn(tokens.shape[2:], generator=torch.Generator().manual_seed(3))
    solution = fit_ridge(latents, tokens, position, ridge, KERNEL)
    rows = slow_rows(latents, KERNEL, (1, 2, 2)).reshape(-1, 2 * 27)
    expected = numpy_ridge(rows, (tokens.double() - position.double()).flatten(0, 2).numpy(), ridge)
    np.testing.assert_allclose(solution.matrix.numpy(), expected, rtol=1e-7, atol=1e-9)


def test_mean_per_position_is_taken_off_the_target() -> None:
    latents = clips()
    tokens = tokens_of(latents)
    solution = fit_ridge(latents, tokens, None, 1e-3, KERNEL)
    mean = tokens.double().mean(dim=(0, 1))
    torch.testing.assert_close(solution.position, mean.unflatten(0, (3, 4)), rtol=1e-12, atol=1e-12)
    given = fit_ridge(latents, tokens, mean, 1e-3, KERNEL)
    torch.testing.assert_close(solution.weight, given.weight, rtol=1e-9, atol=1e-12)


def test_view_0_may_have_a_mean_of_its_own() -> None:
    """The solution is the one for targets from which both means were taken, and so is its error."""
    latents = clips()
    tokens = tokens_of(latents)
    tokens[:, 0] += torch.randn(tokens.shape[2:], generator=torch.Generator().manual_seed(4))
    statistics = RidgeStatistics(KERNEL)
    statistics.add(latents, {"M0": tokens})
    solution = statistics.solve(1e-3, {"M0": None}, reference={"M0"})["M0"]
    means = torch.stack([tokens[:, 0].double().mean(0), tokens[:, 1:].double().mean((0, 1))])
    torch.testing.assert_close(solution.position.flatten(1, 2), means, rtol=1e-12, atol=1e-12)
    kinds = torch.arange(tokens.shape[1]).clamp(max=1)
    residual = tokens.double() - means[kinds]
    alone = RidgeStatistics(KERNEL)
    alone.add(latents, {"M0": residual})
    plain = alone.solve(1e-3, {"M0": torch.zeros(tokens.shape[2:])})["M0"]
    torch.testing.assert_close(solution.weight, plain.weight, rtol=1e-9, atol=1e-12)
    assert statistics.error("M0", solution) == pytest.approx(alone.error("M0", plain), rel=1e-9)
    connector = Connector.from_ridge(solution, torch.zeros(1, 4))
    expected = connector.conv(latents).permute(0, 2, 3, 4, 1).flatten(2, 3) + means.float()[kinds]
    torch.testing.assert_close(connector(latents)[0], expected, rtol=1e-5, atol=1e-5)


def test_connector_with_the_solution_computes_the_regression() -> None:
    latents = clips()
    tokens = tokens_of(latents)
    solution = fit_ridge(latents, tokens, None, 1e-3, KERNEL)
    rows = torch.from_numpy(slow_rows(latents, KERNEL, (1, 2, 2))).flatten(4)
    expected = rows @ solution.matrix[:-1] + solution.matrix[-1] + solution.position
    connector = Connector.from_ridge(solution, torch.zeros(1, 4))
    torch.testing.assert_close(connector(latents)[0].double(), expected.flatten(2, 3), rtol=1e-5, atol=1e-5)


def test_batches_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = clips()
    tokens = {"a": tokens_of(latents), "b": tokens_of(latents, width=3, seed=9)}
    whole = RidgeStatistics(KERNEL)
    whole.add(latents, tokens)
    monkeypatch.setattr(ridge_module, "_CHUNK_ELEMENTS", 500)
    monkeypatch.setattr(ridge_module, "_GRAM_BLOCK", 10)
    parts = RidgeStatistics(KERNEL)
    positions = {"a": None, "b": torch.zeros(12, 3)}
    for chosen in (slice(0, 1), slice(1, 4), slice(4, 6)):
        parts.add(latents[chosen], {name: value[chosen] for name, value in tokens.items()})
        parts.solve(1e-2, positions)  # asking in between changes nothing
    for name, solution in whole.solve(1e-2, positions).items():
        other = parts.solve(1e-2, positions)[name]
        torch.testing.assert_close(solution.matrix, other.matrix, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(solution.position, other.position, rtol=1e-12, atol=1e-12)
    assert whole.num_tokens == parts.num_tokens == 6 * 3 * 12


@pytest.mark.parametrize("known_position", [False, True])
def test_error_on_other_clips_is_one_minus_r_squared_of_the_residuals(known_position: bool) -> None:
    latents = clips(count=10)
    tokens = tokens_of(latents)
    fit, held_out = RidgeStatistics(KERNEL), RidgeStatistics(KERNEL)
    fit.add(latents[:6], {"E0": tokens[:6]})
    held_out.add(latents[6:], {"E0": tokens[6:]})
    position = (
        torch.randn(tokens.shape[2:], generator=torch.Generator().manual_seed(3)) if known_position else None
    )
    solution = fit.solve(1e-2, {"E0": position})["E0"]
    for statistics, chosen in ((held_out, slice(6, 10)), (fit, slice(0, 6))):
        rows = slow_rows(latents[chosen], KERNEL, (1, 2, 2)).reshape(-1, 2 * 27)
        predicted = rows @ solution.matrix[:-1].numpy() + solution.matrix[-1].numpy()
        target = (tokens[chosen].double() - solution.position.flatten(0, 1)).flatten(0, 2).numpy()
        expected = ((target - predicted) ** 2).sum() / ((target - target.mean(0)) ** 2).sum()
        assert statistics.error("E0", solution) == pytest.approx(expected, rel=1e-9)
    assert held_out.error("E0", solution) > fit.error("E0", solution) > 0


def test_linear_tokens_are_found_exactly() -> None:
    """Held-out error 0 if the latents determine the tokens linearly within the receptive field."""
    latents = clips(count=16)
    conv = nn.Conv3d(2, 4, KERNEL, stride=(1, 2, 2), padding=1).double()
    with torch.no_grad():
        tokens = conv(latents.double()).permute(0, 2, 3, 4, 1).flatten(2, 3)
    fit, held_out = RidgeStatistics(KERNEL), RidgeStatistics(KERNEL)
    fit.add(latents[:12], {"E0": tokens[:12]})
    held_out.add(latents[12:], {"E0": tokens[12:]})
    solution = fit.solve(1e-10, {"E0": torch.zeros(12, 4)})["E0"]
    assert held_out.error("E0", solution) < 1e-12
    torch.testing.assert_close(solution.weight, conv.weight.detach(), rtol=1e-6, atol=1e-7)


def test_useless_latents_score_one_or_worse() -> None:
    latents = clips(count=40)
    tokens = torch.randn(40, 3, 12, 4, generator=torch.Generator().manual_seed(5))
    fit, held_out = RidgeStatistics(KERNEL), RidgeStatistics(KERNEL)
    fit.add(latents[:20], {"E0": tokens[:20]})
    held_out.add(latents[20:], {"E0": tokens[20:]})
    assert 1.0 <= held_out.error("E0", fit.solve(1e-3, {"E0": torch.zeros(12, 4)})["E0"]) < 1.3
    heavy = fit.solve(1e6, {"E0": torch.zeros(12, 4)})["E0"]
    assert held_out.error("E0", heavy) == pytest.approx(1.0, abs=0.02)


class TestBadInput:
    def test_tokens_of_another_grid(self) -> None:
        with pytest.raises(ValueError, match=r"tokens at E0 have shape .*need \[6, 3, 12, 'width'\]"):
            RidgeStatistics(KERNEL).add(clips(), {"E0": torch.zeros(6, 3, 11, 4)})

    def test_grid_or_layers_change_between_batches(self) -> None:
        statistics = RidgeStatistics(KERNEL)
        statistics.add(clips(), {"E0": torch.zeros(6, 3, 12, 4)})
        with pytest.raises(ValueError, match="3x3 grid and layers"):
            statistics.add(clips(width=5), {"E0": torch.zeros(6, 3, 9, 4)})
        with pytest.raises(ValueError, match="layers"):
            statistics.add(clips(), {"E1": torch.zeros(6, 3, 12, 4)})
        with pytest.raises(ValueError, match="latents have 3 channels"):
            statistics.add(clips(channels=3), {"E0": torch.zeros(6, 3, 12, 4)})

    def test_no_data(self) -> None:
        with pytest.raises(ValueError, match="no data"):
            RidgeStatistics(KERNEL).solve(1e-3, {"E0": None})

    @pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan")])
    def test_no_penalty(self, ridge: float) -> None:
        statistics = RidgeStatistics(KERNEL)
        statistics.add(clips(), {"E0": torch.zeros(6, 3, 12, 4)})
        with pytest.raises(ValueError, match="ridge is"):
            statistics.solve(ridge, {"E0": None})

    def test_penalty_too_small_for_constant_latents(self) -> None:
        statistics = RidgeStatistics(KERNEL)
        latents = torch.ones(1, 2, 1, 1, 1).expand(1, 2, 3, 6, 7)
        statistics.add(latents, {"E0": torch.zeros(1, 3, 12, 4)})
        with pytest.raises(ValueError, match="use a larger one"):
            statistics.solve(1e-300, {"E0": None})

    def test_position_of_another_shape(self) -> None:
        statistics = RidgeStatistics(KERNEL)
        statistics.add(clips(), {"E0": torch.zeros(6, 3, 12, 4)})
        with pytest.raises(ValueError, match="positional part of E0"):
            statistics.solve(1e-3, {"E0": torch.zeros(9, 4)})

    def test_even_kernel(self) -> None:
        with pytest.raises(ValueError, match="odd"):
            unfold_latents(clips(), (2, 3, 3))
