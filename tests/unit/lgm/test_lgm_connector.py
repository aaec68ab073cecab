"""The connector: shapes, positions, special tokens, and other grids than the fitted one."""

import json

import pytest
import torch

from vggrpo.lgm import Connector, RidgeSolution, token_grid


def filled_connector() -> Connector:
    generator = torch.Generator().manual_seed(0)
    solution = RidgeSolution(
        weight=torch.randn(6, 4, 5, 5, 5, generator=generator, dtype=torch.float64) / 10,
        bias=torch.randn(6, generator=generator, dtype=torch.float64),
        position=torch.randn(3, 4, 6, generator=generator, dtype=torch.float64),
        ridge=1e-4,
    )
    return Connector.from_ridge(solution, torch.randn(2, 6, generator=generator))


@pytest.mark.parametrize(
    ("latent", "grid"), [((6, 8), (3, 4)), ((5, 7), (3, 4)), ((45, 80), (23, 40)), ((1, 1), (1, 1))]
)
def test_grid_is_half_the_latents_rounded_up(latent: tuple[int, int], grid: tuple[int, int]) -> None:
    assert token_grid(*latent) == grid
    latents = torch.zeros(1, 4, 2, *latent)
    connector = Connector(4, 6, grid, num_special_tokens=2)
    tokens, specials = connector(latents)
    assert tokens.shape == (1, 2, grid[0] * grid[1], 6)
    assert specials.shape == (1, 2, 2, 6)
    assert connector.token_grid(latents) == grid


def test_tokens_are_convolution_plus_position_in_raster_order() -> None:
    connector = filled_connector()
    latents = torch.randn(2, 4, 3, 6, 8)
    features = connector.conv(latents)
    tokens, _ = connector(latents)
    for row, column in ((0, 0), (1, 3), (2, 1)):
        expected = features[:, :, :, row, column].transpose(1, 2) + connector.position[row, column]
        torch.testing.assert_close(tokens[:, :, row * 4 + column], expected)


def test_special_tokens_are_the_same_for_all_views_and_learnt() -> None:
    connector = filled_connector()
    _, specials = connector(torch.randn(2, 4, 3, 6, 8))
    assert torch.equal(specials[1, 2], connector.special_tokens)
    specials.sum().backward()
    assert connector.special_tokens.grad is not None
    assert torch.equal(connector.special_tokens.grad, torch.full((2, 6), 6.0))


def test_positions_are_a_buffer_and_not_trained() -> None:
    connector = filled_connector()
    assert set(dict(connector.named_parameters())) == {"conv.weight", "conv.bias", "special_tokens"}
    assert "position" in connector.state_dict()


def test_positions_on_another_grid_are_interpolated_between_pixel_centres() -> None:
    connector = filled_connector()
    assert connector.position_on((3, 4)) is connector.position
    doubled = connector.position_on((6, 8))
    # Cell 1 of the fine grid has its centre at .25 of the coarse one, cell 2 at .75: between cells 0 and 1.
    expected = 0.75 * connector.position[0, 0] + 0.25 * connector.position[0, 1]
    torch.testing.assert_close(doubled[0, 1], expected)
    with torch.no_grad():
        connector.position.fill_(1.5)
    torch.testing.assert_close(connector.position_on((5, 2)), torch.full((5, 2, 6), 1.5))


def test_views_see_two_latent_frames_around_their_own() -> None:
    connector = filled_connector()
    latents = torch.zeros(1, 4, 7, 6, 8, requires_grad=True)
    connector(latents)[0][:, 3].sum().backward()
    assert latents.grad is not None
    touched = latents.grad.abs().sum(dim=(0, 1, 3, 4)) > 0
    assert touched.tolist() == [False, True, True, True, True, True, False]


def test_config_rebuilds_the_connector() -> None:
    connector = filled_connector()
    again = Connector.from_config(json.loads(json.dumps(connector.config)))
    again.load_state_dict(connector.state_dict())
    latents = torch.randn(1, 4, 3, 6, 8)
    assert torch.equal(again(latents)[0], connector(latents)[0])
    assert torch.equal(again(latents)[1], connector(latents)[1])


def test_without_special_tokens() -> None:
    assert Connector(4, 6, (3, 4))(torch.zeros(2, 4, 3, 6, 8))[1].shape == (2, 3, 0, 6)


class TestBadInput:
    @pytest.mark.parametrize("shape", [(1, 3, 2, 6, 8), (4, 2, 6, 8)])
    def test_latents_of_another_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"latents have shape .* needs \[B, 4, T, H, W\]"):
            filled_connector()(torch.zeros(shape))

    def test_stride_in_time(self) -> None:
        with pytest.raises(ValueError, match="must be 1 in time"):
            Connector(4, 6, (3, 4), stride=(2, 2, 2))

    def test_even_kernel(self) -> None:
        with pytest.raises(ValueError, match="kernel_size is"):
            Connector(4, 6, (3, 4), kernel_size=(4, 5, 5))


@pytest.mark.parametrize("views", [2, 3, 5])
def test_autocast_changes_neither_tokens_nor_gradients(views: int) -> None:
    """In bfloat16 the weights' gradient would be garbage for clips of fewer than five latent frames."""
    connector, latents = filled_connector(), torch.randn(2, 4, views, 6, 8)
    exact, _ = connector(latents)
    with torch.autocast("cpu", torch.bfloat16):
        tokens, _ = connector(latents)
    assert torch.equal(tokens, exact)
    cotangent = torch.randn_like(tokens)
    gradients = [torch.autograd.grad(x, connector.conv.weight, cotangent)[0] for x in (tokens, exact)]
    torch.testing.assert_close(*gradients)
