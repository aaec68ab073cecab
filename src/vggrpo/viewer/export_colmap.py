"""Scenes as COLMAP models in text form, for programs that start from posed images (3DGS, NeRF, MVS).

COLMAP's conventions: world-to-camera poses with quaternions w x y z; pixel centres at half integers, so that
the first pixel's centre is (0.5, 0.5). Axes are OpenCV's, as here. It takes the world for static.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from vggrpo.geometry import invert_se3, matrix_to_quat_wxyz, project
from vggrpo.io import write_bytes, write_text
from vggrpo.viewer.export_cameras import scene_cameras
from vggrpo.viewer.export_points import PointCloud, frame_name
from vggrpo.viewer.scene_file import Scene4D

PIXEL_CENTRE = 0.5
"""COLMAP's coordinate of the first pixel's centre; here it is 0."""


def write_colmap(folder: Path | str, scene: Scene4D, cloud: PointCloud) -> None:
    """Writes `images/frame_00004.png` for each view and the model `sparse/0/{cameras,images,points3D}.txt`.

    A pinhole camera for each different intrinsics; a point for each point of `cloud`, observed once, by the
    pixel that it is from; its ERROR is the distance of its projection from that pixel's centre. View i is
    image i + 1.

    Args:
        folder: to write into.
        scene: with the cameras and pictures.
        cloud: points of the same scene; `PointSelection(static_only=True)` keeps out what moves.

    Raises:
        ConfigError: if a camera is not finite or no pinhole camera.
        DiskFullError: if the space runs out.
    """
    folder = Path(folder)
    model = folder / "sparse" / "0"
    pose, K = scene_cameras(scene, "COLMAP")
    distinct, camera_of_view = np.unique(K[:, [0, 1, 0, 1], [0, 1, 2, 2]], axis=0, return_inverse=True)
    camera_of_view = camera_of_view.reshape(-1)
    for picture, frame in zip(scene.colours.cpu().numpy(), scene.frame_indices, strict=True):
        png = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
        write_bytes(folder / "images" / f"{frame_name(frame)}.png", png)
    height, width = scene.geometry.height, scene.geometry.width
    write_text(model / "cameras.txt", "".join(_cameras(distinct, height, width)))
    write_text(model / "images.txt", "".join(_images(scene, cloud, pose, camera_of_view)))
    errors = _reprojection_errors(cloud, pose, K)
    write_text(model / "points3D.txt", "".join(_points(scene, cloud, errors)))


def _cameras(distinct: NDArray[np.float64], height: int, width: int) -> Iterator[str]:
    """Lines of intrinsics fx, fy, cx, cy [N, 4] of the integer-centre convention."""
    yield "# CAMERA_ID MODEL WIDTH HEIGHT fx fy cx cy\n"
    for number, (fx, fy, cx, cy) in enumerate(distinct, start=1):
        numbers = _words(fx, fy, cx + PIXEL_CENTRE, cy + PIXEL_CENTRE)
        yield f"{number} PINHOLE {width} {height} {numbers}\n"


def _images(
    scene: Scene4D, cloud: PointCloud, pose: NDArray[np.float64], camera_of_view: NDArray[np.int64]
) -> Iterator[str]:
    """Two lines for each view: its world-to-camera pose and name; its observations X Y POINT3D_ID."""
    world_to_camera = invert_se3(torch.from_numpy(pose))
    quat_wxyz = matrix_to_quat_wxyz(world_to_camera[:, :3, :3]).numpy()
    translation = world_to_camera[:, :3, 3].numpy()
    yield "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then X Y POINT3D_ID of each observation\n"
    point = 1
    for view, frame in enumerate(scene.frame_indices):
        numbers = _words(*quat_wxyz[view], *translation[view])
        yield f"{view + 1} {numbers} {camera_of_view[view] + 1} {frame_name(frame)}.png\n"
        rows_and_columns = cloud.of_view(view).pixels[:, 1:]
        yield " ".join(
            f"{column + PIXEL_CENTRE} {row + PIXEL_CENTRE} {number}"
            for number, (row, column) in enumerate(rows_and_columns.tolist(), start=point)
        )
        yield "\n"
        point += len(rows_and_columns)


def _points(scene: Scene4D, cloud: PointCloud, errors: NDArray[np.float64]) -> Iterator[str]:
    """A line for each point; its track is the one observation."""
    yield "# POINT3D_ID X Y Z R G B ERROR IMAGE_ID POINT2D_IDX\n"
    first_of_view = np.searchsorted(cloud.pixels[:, 0], np.arange(scene.num_views))
    columns = zip(
        cloud.positions.tolist(),
        cloud.colours.tolist(),
        errors.tolist(),
        cloud.pixels[:, 0].tolist(),
        strict=True,
    )
    for index, (position, (red, green, blue), error, view) in enumerate(columns):
        observation = index - first_of_view[view]
        yield f"{index + 1} {_words(*position)} {red} {green} {blue} {error:.6g} {view + 1} {observation}\n"


def _reprojection_errors(
    cloud: PointCloud, pose: NDArray[np.float64], K: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[N], in pixels: between each point's projection into its own view and the pixel that it is from."""
    errors = np.empty(len(cloud))
    for view in range(len(pose)):
        own = cloud.pixels[:, 0] == view
        points = torch.from_numpy(cloud.positions[own].astype(np.float64))
        uv, _ = project(
            points[None], torch.from_numpy(K[view : view + 1]), torch.from_numpy(pose[view : view + 1])
        )
        column_and_row = cloud.pixels[own][:, [2, 1]]
        errors[own] = np.linalg.norm(uv[0].numpy() - column_and_row, axis=-1)
    return errors


def _words(*numbers: float) -> str:
    """Numbers as the shortest text that reads back as the same float64."""
    return " ".join(repr(float(number)) for number in numbers)
