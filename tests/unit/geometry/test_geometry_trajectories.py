"""Velocities and higher differences of camera paths."""

import pytest
import torch

from vggrpo.geometry import (
    angular_velocity,
    camera_centres,
    difference,
    linear_velocity,
    path_length,
    se3_from_rt,
    so3_exp,
)


def test_constant_motion_has_constant_velocity_and_no_acceleration() -> None:
    steps = torch.arange(6, dtype=torch.float64)[:, None]
    v, w = torch.tensor([[0.1, -0.2, 0.3]]).double(), torch.tensor([[0.02, 0.05, -0.01]]).double()
    path = se3_from_rt(so3_exp(steps * w), steps * v)
    assert torch.allclose(linear_velocity(path), v.expand(5, 3))
    assert torch.allclose(angular_velocity(path), w.expand(5, 3))
    assert difference(linear_velocity(path)).abs().max() < 1e-12
    assert torch.allclose(path_length(path), 5 * v.norm())


def test_differences_of_a_cubic() -> None:
    t = torch.arange(6, dtype=torch.float64)
    series = torch.stack([t**3, t**2, t], dim=-1)
    assert torch.allclose(difference(series, order=3), torch.tensor([6.0, 0, 0]).double().expand(3, 3))
    assert torch.allclose(difference(series, order=2)[:, 1], torch.full((4,), 2.0).double())


def test_velocity_of_turns_does_not_depend_on_the_world() -> None:
    path = se3_from_rt(so3_exp(torch.randn(2, 5, 3).double()), torch.randn(2, 5, 3).double())
    change = se3_from_rt(so3_exp(torch.randn(3).double()), torch.randn(3).double())
    assert torch.allclose(angular_velocity(change @ path), angular_velocity(path), atol=1e-9)
    lengths = linear_velocity(change @ path).norm(dim=-1), linear_velocity(path).norm(dim=-1)
    assert torch.allclose(*lengths)


def test_centres_are_the_last_column() -> None:
    path = se3_from_rt(so3_exp(torch.randn(5, 3)), torch.arange(15.0).reshape(5, 3))
    assert torch.equal(camera_centres(path), torch.arange(15.0).reshape(5, 3))


def test_too_short_a_series_is_named() -> None:
    with pytest.raises(ValueError, match=r"series has shape \[2, 3\].*order 2 needs at least 3"):
        difference(torch.zeros(2, 3), order=2)
