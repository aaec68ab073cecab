"""COLMAP's own library reads the model, and its own projection finds every point on its pixel."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from exact_scenes import cropped, exact_scene

from vggrpo.config import ConfigError
from vggrpo.geometry import SceneGeometry
from vggrpo.viewer import PointCloud, PointSelection, Scene4D, scene_points, write_colmap

STATIC = PointSelection(static_only=True, pixel_step=3)


@pytest.fixture(scope="module")
def scene() -> Scene4D:
    """With a principal point that is nowhere near the middle."""
    return cropped(exact_scene(), 5, 14)


@pytest.fixture(scope="module")
def cloud(scene: Scene4D) -> PointCloud:
    return scene_points(scene, STATIC)


@pytest.fixture(scope="module")
def folder(scene: Scene4D, cloud: PointCloud, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colmap")
    write_colmap(folder, scene, cloud)
    return folder


def test_colmap_projects_every_point_onto_its_pixel(scene: Scene4D, cloud: PointCloud, folder: Path) -> None:
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    assert model.num_images() == scene.num_views
    assert model.num_points3D() == len(cloud) > 300
    seen = 0
    for image in model.images.values():
        view = image.image_id - 1
        assert image.name == f"frame_{scene.frame_indices[view]:05d}.png"
        own = cloud.of_view(view)
        assert len(image.points2D) == len(own)
        for observation, (_, row, column) in zip(image.points2D, own.pixels, strict=True):
            point = model.points3D[observation.point3D_id]
            np.testing.assert_array_equal(observation.xy, [column + 0.5, row + 0.5])
            np.testing.assert_allclose(image.project_point(point.xyz), observation.xy, atol=1e-3)
            np.testing.assert_array_equal(point.color, scene.colours[view, row, column])
            np.testing.assert_array_equal(
                np.float32(point.xyz), scene.geometry.world_points[0, view, row, column]
            )
            assert point.error < 1e-3
            seen += 1
    assert seen == len(cloud)


def test_a_mirrored_camera_is_refused(scene: Scene4D, cloud: PointCloud, tmp_path: Path) -> None:
    pose = scene.geometry.camera_to_world.clone()
    pose[0, 1, :3, 0] *= -1
    mirrored = replace(scene, geometry=replace(scene.geometry, camera_to_world=pose))
    with pytest.raises(ConfigError, match="mirrored, as those of views 1 are"):
        write_colmap(tmp_path / "out", mirrored, cloud)


def test_points_that_move_are_not_in_the_model(scene: Scene4D, cloud: PointCloud) -> None:
    everything = scene_points(scene, replace(STATIC, static_only=False))
    assert 0 < len(cloud) < len(everything)


def test_cameras_are_inverted_and_centred(scene: Scene4D, folder: Path) -> None:
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    for image in model.images.values():
        view = image.image_id - 1
        pose = scene.geometry.camera_to_world[0, view].double().numpy()
        np.testing.assert_allclose(image.projection_center(), pose[:3, 3], atol=1e-6)
        world_to_camera = image.cam_from_world().rotation.matrix()
        np.testing.assert_allclose(world_to_camera.T, pose[:3, :3], atol=1e-6)
        camera = model.cameras[image.camera_id]
        K = scene.geometry.intrinsics[0, view].double().numpy()
        assert (camera.width, camera.height) == (34, 31)
        np.testing.assert_allclose(camera.params, [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5], rtol=1e-6)


def test_pictures_are_the_views(scene: Scene4D, folder: Path) -> None:
    for view, frame in enumerate(scene.frame_indices):
        picture = cv2.imread(str(folder / "images" / f"frame_{frame:05d}.png"))[..., ::-1]
        np.testing.assert_array_equal(picture, scene.colours[view].numpy())


def with_intrinsics(scene: Scene4D, view: int, row: int, column: int, value: float) -> Scene4D:
    intrinsics = scene.geometry.intrinsics.clone()
    intrinsics[0, view, row, column] = value
    return replace(scene, geometry=replace(scene.geometry, intrinsics=intrinsics))


def test_views_share_a_camera_only_if_their_intrinsics_are_equal(scene: Scene4D, tmp_path: Path) -> None:
    scene = with_intrinsics(scene, 1, 0, 0, 50.0)
    write_colmap(tmp_path, scene, scene_points(scene, STATIC))
    model = pycolmap.Reconstruction(tmp_path / "sparse" / "0")
    assert model.num_cameras() == 2
    focal = {image.image_id - 1: model.cameras[image.camera_id].params[0] for image in model.images.values()}
    assert focal[1] == 50.0
    assert focal[0] == focal[2] != 50.0


def test_a_pose_that_is_not_quite_a_rotation_becomes_the_nearest(scene: Scene4D, tmp_path: Path) -> None:
    geometry: SceneGeometry = scene.geometry
    pose = geometry.camera_to_world.clone()
    pose[..., :3, :3] *= 1.001
    rough = replace(scene, geometry=replace(geometry, camera_to_world=pose))
    write_colmap(tmp_path, rough, scene_points(rough, STATIC))
    model = pycolmap.Reconstruction(tmp_path / "sparse" / "0")
    image = model.images[3]
    np.testing.assert_allclose(
        image.cam_from_world().rotation.matrix().T, geometry.camera_to_world[0, 2, :3, :3], atol=1e-5
    )
    np.testing.assert_allclose(image.projection_center(), geometry.camera_to_world[0, 2, :3, 3], atol=1e-6)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((1, 0, 0), torch.nan, "not finite, as those of views 1 are; leave this export out"),
        ((2, 1, 1), -3.0, "without positive focal lengths, as those of views 2 are"),
        ((0, 0, 1), 4.0, "with skewed pixels, as those of views 0 are"),
    ],
)
def test_cameras_that_colmap_cannot_hold(
    scene: Scene4D, cloud: PointCloud, tmp_path: Path, place: tuple[int, int, int], value: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"COLMAP cannot hold cameras that are {message}"):
        write_colmap(tmp_path / "out", with_intrinsics(scene, *place, value), cloud)
    assert not (tmp_path / "out").exists()
