import math

import pytest
import torch

from vggrpo.geometry import (
    CAMERA_PATHS,
    angular_velocity,
    dolly,
    orbit,
    pan,
    project,
    relative_pose,
    resample_path,
    so3_log,
    truck,
)


@pytest.mark.parametrize("path", [make(5, 12.0) for make in CAMERA_PATHS.values()], ids=list(CAMERA_PATHS))
def test_paths_start_at_the_world_and_are_rigid(path):
    assert path.shape == (5, 4, 4)
    torch.testing.assert_close(path[0], torch.eye(4))
    rotation = path[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(5, 3, 3), rtol=0, atol=1e-5)
    steps = relative_pose(path[:-1], path[1:])
    torch.testing.assert_close(steps, steps[:1].expand(4, 4, 4), rtol=0, atol=1e-4)


def test_an_orbit_keeps_the_point_ahead_in_the_middle_at_its_distance():
    path = orbit(7, 40.0, radius=2.5)
    K = torch.tensor([[50.0, 0, 16], [0, 50, 12], [0, 0, 1]])
    uv, z = project(torch.tensor([0.0, 0.0, 2.5]).expand(7, 1, 3), K.expand(7, 3, 3), path)
    torch.testing.assert_close(uv, torch.tensor([16.0, 12.0]).expand(7, 1, 2), rtol=0, atol=1e-3)
    torch.testing.assert_close(z, torch.full((7, 1), 2.5))
    assert path[-1, 0, 3] > 0
    assert so3_log(path[-1, :3, :3]).norm() == pytest.approx(math.radians(40.0), abs=1e-5)


def test_directions_are_those_of_opencv_axes():
    assert dolly(3, 2.0)[-1, :3, 3].tolist() == [0.0, 0.0, 2.0]
    assert truck(3, -2.0)[-1, :3, 3].tolist() == [-2.0, 0.0, 0.0]
    looked_at = pan(3, 90.0)[-1, :3, :3] @ torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(looked_at, torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("views", [2, 5, 9, 33])
def test_resampling_an_even_path_gives_the_even_path_of_another_length(views):
    """Of a path that turns on the spot and one that goes straight; an orbit's chords are shorter."""
    for make in (lambda n: pan(n, 50.0), lambda n: dolly(n, 3.0)):
        torch.testing.assert_close(resample_path(make(9), views), make(views), rtol=0, atol=1e-5)


def test_resampling_keeps_the_ends_and_the_cameras_it_meets():
    path = orbit(5, 60.0)
    fine = resample_path(path, 9)
    torch.testing.assert_close(fine[::2], path, rtol=0, atol=1e-5)
    speed = angular_velocity(fine).norm(dim=-1)
    torch.testing.assert_close(speed, speed.mean().expand(8), rtol=1e-3, atol=0)


def test_bad_paths_are_refused():
    with pytest.raises(ValueError, match="num_views is 1"):
        dolly(1, 1.0)
    with pytest.raises(ValueError, match="N >= 2 cameras"):
        resample_path(torch.eye(4)[None], 5)
