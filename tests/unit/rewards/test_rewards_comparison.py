"""Comparing rendered with observed depth: pixels, between pixels, edges and occlusion."""

import pytest
import torch

from vggrpo.geometry import PointRender, camera_rays, intrinsics_from_fov
from vggrpo.rewards.comparison import depth_error, observed_at_pixels, observed_at_points


def render_at(u: float, v: float, depth: float, height: int = 4, width: int = 4) -> PointRender:
    """One point, on pixel (1, 1)."""
    covered = torch.zeros(1, 1, height, width, dtype=torch.bool)
    covered[0, 0, 1, 1] = True
    return PointRender(
        depth=covered * depth,
        uv=covered[..., None] * torch.tensor([u, v]),
        covered=covered,
        point_index=covered.long() - 1,
    )


def test_at_pixels_it_is_the_pixels_own_depth() -> None:
    depth = torch.rand(1, 1, 4, 4) + 1
    usable = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    observed, omega = observed_at_pixels(render_at(1.3, 0.8, 2.0), depth, usable)
    assert torch.equal(observed, depth)
    assert omega.sum() == 1
    usable[0, 0, 1, 1] = False
    assert observed_at_pixels(render_at(1.3, 0.8, 2.0), depth, usable)[1].sum() == 0


def test_between_pixels_a_plane_is_exact() -> None:
    K = intrinsics_from_fov(torch.tensor(1.0, dtype=torch.float64), 4, 4)
    normal = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)
    depth = 3 / (camera_rays(K, 4, 4) * normal).sum(-1)
    u, v = 1.37, 0.81
    ray = torch.linalg.inv(K) @ torch.tensor([u, v, 1.0], dtype=torch.float64)
    usable = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    observed, omega = observed_at_points(render_at(u, v, 3.0), depth[None, None], usable, None)
    assert omega[0, 0, 1, 1]
    assert torch.isclose(observed[0, 0, 1, 1], 3 / (ray * normal).sum(), atol=1e-6)


def test_all_four_pixels_must_exist_and_be_usable() -> None:
    depth = torch.ones(1, 1, 4, 4)
    for row, column, expected in [(1, 1, 0), (1, 2, 0), (0, 1, 0), (0, 2, 0), (2, 1, 1), (1, 0, 1)]:
        usable = torch.ones(1, 1, 4, 4, dtype=torch.bool)
        usable[0, 0, row, column] = False
        omega = observed_at_points(render_at(1.3, 0.8, 1.0), depth, usable, None)[1]
        assert omega.sum() == expected, (row, column)
    usable = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    assert observed_at_points(render_at(-0.3, 0.8, 1.0), depth, usable, None)[1].sum() == 0
    assert observed_at_points(render_at(3.0, 3.0, 1.0), depth, usable, None)[1].sum() == 1


@pytest.mark.parametrize(
    ("z", "counted", "reference"),
    [(2.0, False, None), (3.0, False, None), (1.0, True, 2.0), (5.0, True, 4.0)],
)
def test_an_edge_excuses_what_lies_between_its_depths_only(
    z: float, counted: bool, reference: float | None
) -> None:
    depth = torch.full((1, 1, 4, 4), 2.0)
    depth[..., 2:] = 4.0
    usable = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    observed, omega = observed_at_points(render_at(1.4, 0.9, z), depth, usable, edge_tolerance=0.1)
    assert bool(omega[0, 0, 1, 1]) is counted
    if reference is not None:
        assert observed[0, 0, 1, 1] == reference
    assert observed_at_points(render_at(1.4, 0.9, z), depth, usable, edge_tolerance=1.5)[1].any()


def test_unusable_depths_leave_gradients_finite() -> None:
    depth = torch.zeros(1, 1, 4, 4)
    depth[..., 2:, :] = 2
    depth.requires_grad_()
    observed, omega = observed_at_points(render_at(1.3, 1.2, 2.0), depth, depth.detach() > 0, 0.1)
    observed.sum().backward()
    assert not omega.any()
    assert torch.isfinite(depth.grad).all()


def test_errors_behind_the_surface_saturate_and_errors_in_front_do_not() -> None:
    rendered, observed = torch.tensor([1.0, 2.1, 3.0, 9.0]), torch.full((4,), 2.0)
    assert torch.allclose(depth_error(rendered, observed, None), torch.tensor([1.0, 0.1, 1.0, 7.0]))
    assert torch.allclose(depth_error(rendered, observed, 0.1), torch.tensor([1.0, 0.1, 0.2, 0.2]))


def test_one_row_of_pixels_has_nothing_between_it() -> None:
    with pytest.raises(ValueError, match=r"1 x 4.*at least 2 x 2"):
        observed_at_points(
            render_at(1, 0, 1.0, 2, 4), torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4) > 0, None
        )
