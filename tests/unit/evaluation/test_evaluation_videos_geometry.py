"""What a geometry model says about a clip, against closed forms and a second implementation."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_models import tiny_any4d_config
from vggrpo.backbones.any4d import Any4D
from vggrpo.evaluation.videos import Clip, Video, multi_view_consistency, open_geometry
from vggrpo.evaluation.videos.geometry import GeometryViews
from vggrpo.geometry import SceneGeometry, camera_rays
from vggrpo.world import Fault, render_clips, sample_scene

CLIP = Clip("clip.mp4", Path("clip.mp4"))


def wall(depths: list[float], camera_z: list[float], size: int = 8) -> SceneGeometry:
    """A camera that goes straight at a wall, with the depths that it reports."""
    views = len(depths)
    camera = torch.eye(4).repeat(1, views, 1, 1)
    camera[0, :, 2, 3] = torch.tensor(camera_z)
    K = torch.tensor([[10.0, 0, 3.5], [0, 10, 3.5], [0, 0, 1]]).repeat(1, views, 1, 1)
    depth = torch.tensor(depths)[None, :, None, None].expand(1, views, size, size).contiguous()
    points = camera_rays(K, size, size) * depth[..., None] + camera[..., None, None, :3, 3]
    return SceneGeometry(camera, K, depth, points)


def test_views_that_agree_have_an_mvcs_of_1() -> None:
    assert float(multi_view_consistency(wall([4.0, 3.0, 2.0], [0.0, 1.0, 2.0]))) == pytest.approx(1, abs=1e-6)


def test_mvcs_is_that_of_the_formula_where_one_depth_is_wrong() -> None:
    # View 1 reports 3.3 for 3: view 0 meets it .3 off, and it meets view 2 (2 away) .3 off as well.
    scene = wall([4.0, 3.3, 2.0], [0.0, 1.0, 2.0])
    expected = math.exp(-((0.3 / 3.3) ** 2))
    assert float(multi_view_consistency(scene)) == pytest.approx(expected, rel=1e-5)


def test_mvcs_does_not_depend_on_the_scale_and_falls_in_a_world_that_does_not_hold_together() -> None:
    specs = [sample_scene("validation", index) for index in range(3)]
    clean = render_clips(specs, views="keys").geometry
    bent = render_clips(specs, views="keys", fault=Fault("wobbling", 2.0)).geometry
    nearer = clean.camera_to_world.clone()
    nearer[..., :3, 3] *= 0.01
    scaled = SceneGeometry(nearer, clean.intrinsics, clean.depth_z * 0.01, clean.world_points * 0.01)
    torch.testing.assert_close(
        multi_view_consistency(scaled), multi_view_consistency(clean), rtol=1e-3, atol=1e-4
    )
    assert bool((multi_view_consistency(bent) < multi_view_consistency(clean)).all())


def test_mvcs_is_that_of_a_loop_over_pixels() -> None:
    scene = render_clips([sample_scene("validation", 3)], views="keys", height=24, width=32).geometry
    unit = float(scene.depth_z.median())
    means = []
    for i in range(scene.num_views - 1):
        following = scene.depth_z[0, i + 1].numpy()
        K, pose = scene.intrinsics[0, i + 1].numpy(), scene.camera_to_world[0, i + 1].numpy()
        squares = []
        for point in scene.world_points[0, i].reshape(-1, 3).numpy():
            x, y, z = pose[:3, :3].T @ (point - pose[:3, 3])
            u, v = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
            if z <= 0 or not (0 <= u < 31 and 0 <= v < 23):
                continue
            c, r = int(u), int(v)
            a, b = u - c, v - r
            depth = (1 - b) * ((1 - a) * following[r, c] + a * following[r, c + 1])
            depth += b * ((1 - a) * following[r + 1, c] + a * following[r + 1, c + 1])
            squares.append(((z - depth) / unit) ** 2)
        means.append(np.mean(squares))
    assert float(multi_view_consistency(scene)) == pytest.approx(math.exp(-np.mean(means)), rel=1e-3)


def test_without_overlap_there_is_no_mvcs() -> None:
    scene = wall([4.0, 3.0], [0.0, 1.0])
    turned = scene.camera_to_world.clone()
    turned[0, 1, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    away = SceneGeometry(turned, scene.intrinsics, scene.depth_z, scene.world_points)
    assert bool(multi_view_consistency(away).isnan())


def test_views_are_every_fourth_frame_and_never_more_than_asked_for() -> None:
    frames = np.arange(81, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 30, 50, 3), np.uint8)
    views = GeometryViews(stride=4, most=21, side=40, patch_size=8)(Video(frames, 8.0), CLIP)
    assert views.shape == (21, 24, 40, 3)
    assert views[:, 0, 0, 0].tolist() == list(range(0, 81, 4))
    few = GeometryViews(stride=4, most=5, side=400, patch_size=8)(Video(frames, 8.0), CLIP)
    assert few.shape == (5, 32, 48, 3)
    assert few[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80]
    with pytest.raises(ValueError, match=r"8 frames give 2 views, but .* at least 9 frames"):
        GeometryViews(stride=4, most=21, side=40, patch_size=8)(Video(frames[:8], 8.0), CLIP)


def test_a_geometry_model_measures_batches_as_it_measures_single_clips(tmp_path: Path) -> None:
    torch.manual_seed(0)
    Any4D(tiny_any4d_config()).save_pretrained(tmp_path)
    metric = open_geometry(str(tmp_path), torch.device("cpu"), side=64, batch_size=2)
    pickle.dumps(metric.prepare)  # goes to worker processes, without the model
    metric.open()
    frames = (render_clips([sample_scene("validation", i) for i in range(2)]).frames * 255).byte().numpy()
    prepared = np.stack([metric.prepare(Video(clip, 8.0), CLIP) for clip in frames])
    together = metric.compute(prepared, [CLIP, CLIP])
    for place, found in enumerate(together):
        (alone,) = metric.compute(prepared[place : place + 1], [CLIP])
        assert found.values.keys() == set(metric.metrics)
        assert found.values == pytest.approx(alone.values, rel=1e-3, nan_ok=True)
    torch.manual_seed(1)
    Any4D(tiny_any4d_config()).save_pretrained(tmp_path)
    assert open_geometry(str(tmp_path), torch.device("cpu"), side=64).fingerprint != metric.fingerprint
