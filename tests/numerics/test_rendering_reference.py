"""Point rendering against a loop over views and points, and its gradients against finite differences."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vggrpo.geometry import PointRender, intrinsics_from_fov, render_depth, se3_from_rt, so3_exp

HEIGHT, WIDTH = 6, 9


def render_by_loop(points: Tensor, keep: Tensor, pose: Tensor, K: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Depth (0 where empty) and point number (-1) [B, V, H, W], one point of one view at a time."""
    batch, views = pose.shape[:2]
    depth = np.zeros((batch, views, HEIGHT, WIDTH))
    index = np.full((batch, views, HEIGHT, WIDTH), -1)
    for b in range(batch):
        for i in range(views):
            world_to_camera = np.linalg.inv(pose[b, i].double().numpy())
            for j in range(points.shape[1]):
                x, y, z = (world_to_camera @ np.append(points[b, j].double().numpy(), 1))[:3]
                if not keep[b, i, j] or z <= 1e-6:
                    continue
                u, v, _ = K[b, i].double().numpy() @ (x / z, y / z, 1)
                column, row = int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
                if not (0 <= column < WIDTH and 0 <= row < HEIGHT):
                    continue
                if index[b, i, row, column] < 0 or z < depth[b, i, row, column]:
                    depth[b, i, row, column], index[b, i, row, column] = z, j
    return depth, index


@pytest.fixture(params=[torch.float32, torch.float64])
def clouds(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    points = torch.randn(2, 400, 3, generator=generator, dtype=request.param)
    turns = 0.4 * torch.randn(2, 3, 3, generator=generator, dtype=request.param)
    shifts = 0.3 * torch.randn(2, 3, 3, generator=generator, dtype=request.param) - torch.tensor([0, 0, 2.0])
    return {
        "points": points,
        "keep": torch.rand(2, 3, 400, generator=generator) > 0.2,
        "pose": se3_from_rt(so3_exp(turns), shifts.to(request.param)),
        "K": intrinsics_from_fov(torch.tensor(1.1, dtype=request.param), HEIGHT, WIDTH).expand(2, 3, 3, 3),
    }


def render(clouds: dict[str, Tensor], **options: int) -> PointRender:
    return render_depth(
        clouds["points"], clouds["keep"], clouds["pose"], clouds["K"], HEIGHT, WIDTH, **options
    )


def test_against_the_loop(clouds: dict[str, Tensor]) -> None:
    depth, index = render_by_loop(clouds["points"], clouds["keep"], clouds["pose"], clouds["K"])
    result = render(clouds)
    assert (index >= 0).mean() > 0.5
    assert np.array_equal(result.point_index.numpy(), index)
    assert np.allclose(result.depth.numpy(), depth, atol=1e-5)


@pytest.mark.parametrize("max_elements", [1, 7, 600, 10**6])
def test_result_does_not_depend_on_the_memory_limit(clouds: dict[str, Tensor], max_elements: int) -> None:
    whole, chunked = render(clouds), render(clouds, max_elements=max_elements)
    assert torch.equal(whole.point_index, chunked.point_index)
    assert torch.equal(whole.depth, chunked.depth)


def test_winners_lie_within_half_a_pixel_of_their_centre(clouds: dict[str, Tensor]) -> None:
    result = render(clouds)
    v, u = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    offset = (result.uv - torch.stack([u, v], dim=-1))[result.covered]
    assert offset.abs().max() <= 0.5 + 1e-5


def test_gradcheck_through_points_cameras_and_intrinsics() -> None:
    generator = torch.Generator().manual_seed(3)
    points = (
        torch.randn(1, 12, 3, generator=generator).double() + torch.tensor([0, 0, 4.0])
    ).requires_grad_()
    turns = (0.1 * torch.randn(1, 2, 3, generator=generator).double()).requires_grad_()
    shifts = (0.1 * torch.randn(1, 2, 3, generator=generator).double()).requires_grad_()
    K = intrinsics_from_fov(torch.tensor(1.1).double(), HEIGHT, WIDTH).repeat(1, 2, 1, 1).requires_grad_()

    def outputs(points: Tensor, turns: Tensor, shifts: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        result = render_depth(points, None, se3_from_rt(so3_exp(turns), shifts), K, HEIGHT, WIDTH)
        return result.depth, result.uv

    assert torch.autograd.gradcheck(outputs, (points, turns, shifts, K))
