"""Two-view geometry against its definitions and against OpenCV."""

import cv2
import numpy as np
import pytest
import torch

from vggrpo.geometry import (
    essential_matrix,
    fundamental_matrix,
    intrinsics_from_fov,
    project,
    sampson_distance,
    se3_from_rt,
    so3_exp,
    symmetric_epipolar_distance,
)

DOUBLE = torch.float64


@pytest.fixture
def two_views() -> dict[str, torch.Tensor]:
    pose_a = se3_from_rt(
        so3_exp(torch.tensor([0.1, -0.2, 0.05]).double()), torch.tensor([0.3, 0.1, -0.2]).double()
    )
    pose_b = se3_from_rt(
        so3_exp(torch.tensor([-0.1, 0.1, 0.1]).double()), torch.tensor([-0.5, 0.2, 0.1]).double()
    )
    K_a = intrinsics_from_fov(torch.tensor(1.0, dtype=DOUBLE), 48, 64)
    K_b = intrinsics_from_fov(torch.tensor(1.3, dtype=DOUBLE), 48, 64)
    points = torch.randn(50, 3, dtype=DOUBLE) + torch.tensor([0, 0, 5.0]).double()
    return {
        "uv_a": project(points, K_a, pose_a)[0],
        "uv_b": project(points, K_b, pose_b)[0],
        "F": fundamental_matrix(pose_a, K_a, pose_b, K_b),
        "E": essential_matrix(pose_a, pose_b),
    }


def test_images_of_one_point_lie_on_each_others_epipolar_lines(two_views: dict[str, torch.Tensor]) -> None:
    uv_a, uv_b, F = two_views["uv_a"], two_views["uv_b"], two_views["F"]
    assert sampson_distance(uv_a, uv_b, F).max() < 1e-9
    assert symmetric_epipolar_distance(uv_a, uv_b, F).max() < 1e-9


def test_essential_matrix_has_two_equal_singular_values_and_a_zero(
    two_views: dict[str, torch.Tensor],
) -> None:
    s = torch.linalg.svdvals(two_views["E"])
    assert torch.allclose(s[0], s[1])
    assert s[2] < 1e-12


def test_sampson_against_opencv(two_views: dict[str, torch.Tensor]) -> None:
    uv_a, uv_b, F = two_views["uv_a"] + 0.5, two_views["uv_b"], two_views["F"]
    ours = sampson_distance(uv_a, uv_b, F)
    for k in range(50):
        x_a, x_b = (np.append(x[k].numpy(), 1.0) for x in (uv_a, uv_b))
        assert np.isclose(cv2.sampsonDistance(x_a, x_b, F.numpy()), float(ours[k]) ** 2)


def test_symmetric_distance_is_the_mean_distance_from_both_lines(two_views: dict[str, torch.Tensor]) -> None:
    uv_a, uv_b, F = two_views["uv_a"] + 0.7, two_views["uv_b"], two_views["F"]
    x_a, x_b = (torch.cat([x, torch.ones(50, 1, dtype=DOUBLE)], dim=-1) for x in (uv_a, uv_b))
    line_b, line_a = x_a @ F.mT, x_b @ F
    in_b = (x_b * line_b).sum(-1).abs() / line_b[:, :2].norm(dim=-1)
    in_a = (x_a * line_a).sum(-1).abs() / line_a[:, :2].norm(dim=-1)
    assert torch.allclose(symmetric_epipolar_distance(uv_a, uv_b, F), 0.5 * (in_a + in_b))


def test_a_common_centre_gives_zero_with_finite_gradient() -> None:
    F = torch.zeros(3, 3, requires_grad=True)
    uv = torch.rand(4, 2)
    distance = sampson_distance(uv, uv, F) + symmetric_epipolar_distance(uv, uv, F)
    distance.sum().backward()
    assert (distance == 0).all()
    assert torch.isfinite(F.grad).all()
