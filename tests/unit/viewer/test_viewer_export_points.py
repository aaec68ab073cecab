"""PLY files and depth images, re-read by other programs' readers and compared; which points are chosen."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from exact_scenes import HEIGHT, WIDTH, exact_scene
from PIL import Image
from plyfile import PlyData

from vggrpo.viewer import (
    PointSelection,
    Scene4D,
    scene_points,
    write_depth_images,
    write_ply,
    write_ply_frames,
)

PIXELS = 3 * HEIGHT * WIDTH


@pytest.fixture(scope="module")
def scene() -> Scene4D:
    return exact_scene()


def with_holes(scene: Scene4D) -> Scene4D:
    """No surface at one pixel, a depth and a point that are not finite at two others."""
    depth_z, points = scene.geometry.depth_z.clone(), scene.geometry.world_points.clone()
    depth_z[0, 0, 1, 2] = 0
    depth_z[0, 1, 3, 4] = torch.inf
    points[0, 2, 5, 6, 1] = torch.nan
    return replace(scene, geometry=replace(scene.geometry, depth_z=depth_z, world_points=points))


def test_a_ply_file_holds_every_point_without_loss(scene: Scene4D, tmp_path: Path) -> None:
    scene = with_holes(scene)
    write_ply(tmp_path / "points.ply", scene_points(scene))
    vertices = PlyData.read(tmp_path / "points.ply")["vertex"]
    keep = torch.ones(3, HEIGHT, WIDTH, dtype=torch.bool)
    keep[0, 1, 2] = keep[1, 3, 4] = keep[2, 5, 6] = False
    geometry = scene.geometry.take(0)
    read = np.stack([vertices[axis] for axis in "xyz"], axis=-1)
    np.testing.assert_array_equal(read, geometry.world_points[0][keep].numpy())
    colours = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=-1)
    np.testing.assert_array_equal(colours, scene.colours[keep].numpy())
    np.testing.assert_array_equal(vertices["view"], keep.nonzero()[:, 0].numpy())
    np.testing.assert_array_equal(vertices["confidence"], geometry.confidence[0][keep].numpy())
    np.testing.assert_array_equal(vertices["static"], geometry.static_mask[0][keep].numpy())
    assert 0 < vertices["static"].mean() < 1


def test_trimesh_sees_the_same_points_and_colours(scene: Scene4D, tmp_path: Path) -> None:
    cloud = scene_points(scene)
    write_ply(tmp_path / "points.ply", cloud)
    read = trimesh.load(tmp_path / "points.ply")
    np.testing.assert_array_equal(np.asarray(read.vertices, np.float32), cloud.positions)
    np.testing.assert_array_equal(read.colors[:, :3], cloud.colours)


def test_a_ply_file_for_each_frame(scene: Scene4D, tmp_path: Path) -> None:
    write_ply_frames(tmp_path, scene, scene_points(scene))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["frame_00000.ply", "frame_00004.ply", "frame_00008.ply"]
    vertices = PlyData.read(tmp_path / "frame_00008.ply")["vertex"]
    np.testing.assert_array_equal(vertices["z"], scene.geometry.world_points[0, 2, ..., 2].flatten().numpy())


def test_scenes_without_confidence_or_in_other_precision(scene: Scene4D, tmp_path: Path) -> None:
    plain = replace(scene.geometry, confidence=None, static_mask=None)
    write_ply(tmp_path / "a.ply", scene_points(replace(scene, geometry=plain.to(dtype=torch.float64))))
    vertices = PlyData.read(tmp_path / "a.ply")["vertex"]
    assert vertices["x"].dtype == np.float64
    assert {p.name for p in vertices.properties} == {"x", "y", "z", "red", "green", "blue", "view"}
    write_ply(tmp_path / "b.ply", scene_points(replace(scene, geometry=plain.to(dtype=torch.bfloat16))))
    assert PlyData.read(tmp_path / "b.ply")["vertex"]["x"].dtype == np.float32


def test_the_selection_leaves_out_what_it_says(scene: Scene4D) -> None:
    surest = scene_points(scene, PointSelection(confidence_quantile=0.75))
    assert len(surest) == pytest.approx(PIXELS / 4, abs=1)
    assert surest.confidence.min() >= PIXELS * 0.75 - 1
    confidence = scene.geometry.confidence.clone()
    confidence[0, 2] = torch.nan
    unsure = replace(scene, geometry=replace(scene.geometry, confidence=confidence))
    assert len(scene_points(unsure, PointSelection(confidence_quantile=0.5))) == pytest.approx(
        PIXELS / 2, abs=1
    )
    assert set(scene_points(unsure, PointSelection(confidence_quantile=0.5)).pixels[:, 0]) == {0, 1}
    sparse = scene_points(scene, PointSelection(pixel_step=4))
    assert len(sparse) == 3 * (HEIGHT // 4) * (WIDTH // 4)
    assert (sparse.pixels[:, 1:] % 4 == 0).all()
    still = scene_points(scene, PointSelection(static_only=True))
    assert len(still) == int(scene.geometry.static_mask.sum())
    assert still.static.all()


def test_nothing_is_left_of_a_scene_without_surfaces(scene: Scene4D, tmp_path: Path) -> None:
    empty = replace(scene.geometry, depth_z=torch.zeros_like(scene.geometry.depth_z))
    cloud = scene_points(replace(scene, geometry=empty), PointSelection(confidence_quantile=0.5))
    write_ply(tmp_path / "points.ply", cloud)
    assert len(PlyData.read(tmp_path / "points.ply")["vertex"]) == 0


@pytest.mark.parametrize(("name", "value"), [("confidence_quantile", 1.0), ("pixel_step", 0)])
def test_a_selection_that_means_nothing_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        PointSelection(**{name: value})


def test_depth_images_are_right_to_half_a_step(scene: Scene4D, tmp_path: Path) -> None:
    depth_z = scene.geometry.depth_z.clone()
    depth_z[0, 0, 1, 2], depth_z[0, 1, 3, 4], depth_z[0, 2, 5, 6] = 0, torch.nan, 1e-9
    write_depth_images(tmp_path, replace(scene, geometry=replace(scene.geometry, depth_z=depth_z)))
    description = json.loads((tmp_path / "depth.json").read_text())
    images = np.stack([np.asarray(Image.open(tmp_path / name)) for name in description["files"]])
    assert description["files"] == ["frame_00000.png", "frame_00004.png", "frame_00008.png"]
    assert images.dtype in (np.uint16, np.int32)
    assert images.max() == 65535
    read = images * description["scale"]
    assert read[0, 1, 2] == read[1, 3, 4] == 0
    assert images[2, 5, 6] == 1
    valid = (images > 1) & np.isfinite(depth_z[0].numpy())
    assert valid.sum() == PIXELS - 3
    error = np.abs(read - depth_z[0].double().numpy())[valid]
    assert error.max() <= description["scale"] / 2 * (1 + 1e-9)


def test_depth_images_of_a_scene_without_surfaces(scene: Scene4D, tmp_path: Path) -> None:
    empty = replace(scene.geometry, depth_z=torch.zeros_like(scene.geometry.depth_z))
    write_depth_images(tmp_path, replace(scene, geometry=empty))
    assert np.asarray(Image.open(tmp_path / "frame_00000.png")).max() == 0
