"""glTF files: trimesh and a strict parser read them; through glTF's cameras every point is on its pixel."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from exact_scenes import HEIGHT, WIDTH, exact_scene
from scipy.spatial.transform import Rotation

from vggrpo.viewer import PointCloud, PointSelection, Scene4D, scene_points, write_glb

COMPONENTS = {5126: np.dtype("<f4"), 5123: np.dtype("<u2")}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


class Glb:
    """A .glb file, read strictly by the specification."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        chunks, start = [], 12
        while start < length:
            size, kind = struct.unpack_from("<II", data, start)
            assert size % 4 == 0
            chunks.append((kind, data[start + 8 : start + 8 + size]))
            start += 8 + size
        assert [kind for kind, _ in chunks] == [0x4E4F534A, 0x004E4942]
        self.json: dict[str, Any] = json.loads(chunks[0][1])
        self.binary = chunks[1][1]
        (buffer,) = self.json["buffers"]
        assert 0 <= len(self.binary) - buffer["byteLength"] < 4
        assert self.json["asset"]["version"] == "2.0"
        assert [] not in self.json.values()
        self.nodes = {node["name"]: node for node in self.json["nodes"]}
        assert len(self.nodes) == len(self.json["nodes"])

    def array(self, number: int) -> np.ndarray:
        """An accessor's values, with its bounds and alignment checked."""
        accessor = self.json["accessors"][number]
        view = self.json["bufferViews"][accessor["bufferView"]]
        dtype, width = COMPONENTS[accessor["componentType"]], WIDTHS[accessor["type"]]
        assert view["byteOffset"] % 4 == 0
        assert dtype.itemsize * width % 4 == 0, "vertex attributes are aligned to 4 bytes"
        assert view["byteLength"] == accessor["count"] * width * dtype.itemsize
        values = np.frombuffer(self.binary, dtype, accessor["count"] * width, view["byteOffset"])
        values = values.reshape(-1, width)
        if "min" in accessor:
            np.testing.assert_array_equal(np.float32(accessor["min"]), values.min(axis=0))
            np.testing.assert_array_equal(np.float32(accessor["max"]), values.max(axis=0))
        return values

    def points(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions [N, 3] and colours [N, 4] of a frame."""
        (primitive,) = self.json["meshes"][self.nodes[f"points frame_{frame:05d}"]["mesh"]]["primitives"]
        assert primitive["mode"] == 0
        assert "KHR_materials_unlit" in self.json["materials"][primitive["material"]]["extensions"]
        assert self.json["extensionsUsed"] == ["KHR_materials_unlit"]
        position, colour = (primitive["attributes"][name] for name in ("POSITION", "COLOR_0"))
        assert "min" in self.json["accessors"][position]
        assert self.json["accessors"][colour]["normalized"]
        return self.array(position), self.array(colour)

    def pixels(self, points: np.ndarray, frame: int) -> np.ndarray:
        """Where a frame's camera sees points [N, 3], as (u, v) [N, 2] with integer pixel centres."""
        node = self.nodes[f"camera frame_{frame:05d}"]
        local = Rotation.from_quat(node["rotation"]).inv().apply(points - node["translation"])
        lens = self.json["cameras"][node["camera"]]["perspective"]
        assert (local[:, 2] < -lens["znear"]).all(), "the scene is in front of the camera, along -z"
        tangent = np.tan(lens["yfov"] / 2)
        x = local[:, 0] / -local[:, 2] / (tangent * lens["aspectRatio"])
        y = local[:, 1] / -local[:, 2] / tangent
        return np.stack([(1 + x) / 2 * WIDTH - 0.5, (1 - y) / 2 * HEIGHT - 0.5], axis=-1)


@pytest.fixture(scope="module")
def scene() -> Scene4D:
    return exact_scene()


@pytest.fixture(scope="module")
def cloud(scene: Scene4D) -> PointCloud:
    return scene_points(scene)


@pytest.fixture(scope="module")
def path(scene: Scene4D, cloud: PointCloud, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gltf") / "scene.glb"
    write_glb(path, scene, cloud)
    return path


def test_every_point_is_on_its_pixel(scene: Scene4D, cloud: PointCloud, path: Path) -> None:
    glb = Glb(path)
    for view, frame in enumerate(scene.frame_indices):
        positions, _ = glb.points(frame)
        expected = cloud.of_view(view).pixels[:, :0:-1]
        np.testing.assert_allclose(glb.pixels(positions, frame), expected, atol=2e-3)


def test_pixels_that_are_not_square(scene: Scene4D, tmp_path: Path) -> None:
    """Twice the focal length in x, of points that are twice as near to the axis."""
    intrinsics, pose = scene.geometry.intrinsics.clone(), torch.eye(4).expand(1, 3, 4, 4)
    intrinsics[..., 0, 0] *= 2
    rays = torch.linalg.solve(
        intrinsics[:, :, None, None], _homogeneous_pixels().expand(1, 3, HEIGHT, WIDTH, 3)[..., None]
    )
    points = rays[..., 0] * scene.geometry.depth_z[..., None]
    geometry = replace(scene.geometry, intrinsics=intrinsics, camera_to_world=pose, world_points=points)
    scene = replace(scene, geometry=geometry)
    cloud = scene_points(scene)
    write_glb(tmp_path / "scene.glb", scene, cloud)
    glb = Glb(tmp_path / "scene.glb")
    seen = glb.pixels(glb.points(4)[0], 4)
    np.testing.assert_allclose(seen, cloud.of_view(1).pixels[:, :0:-1], atol=2e-3)


def _homogeneous_pixels() -> torch.Tensor:
    v, u = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack([u, v, torch.ones_like(u)], dim=-1).float()


def test_up_is_up_and_colours_are_linear(scene: Scene4D, cloud: PointCloud, path: Path) -> None:
    glb = Glb(path)
    positions, colours = glb.points(0)
    own = cloud.of_view(0)
    np.testing.assert_array_equal(positions, own.positions * [1, -1, -1])
    assert (colours[:, 3] == 65535).all()
    linear = colours[:, :3] / 65535
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_array_equal(np.round(srgb * 255), own.colours)


def test_trimesh_sees_the_same_points(scene: Scene4D, cloud: PointCloud, path: Path) -> None:
    read = trimesh.load(path)
    clouds = [part for part in read.geometry.values() if isinstance(part, trimesh.PointCloud)]
    assert len(clouds) == scene.num_views
    for frame in scene.frame_indices:
        assert f"points frame_{frame:05d}" in read.graph.nodes
        matrix, _ = read.graph[f"camera frame_{frame:05d}"]
        view = scene.frame_indices.index(frame)
        flip = np.diag([1, -1, -1, 1])
        pose = scene.geometry.camera_to_world[0, view].double().numpy()
        np.testing.assert_allclose(matrix, flip @ pose @ flip, atol=1e-6)
    everything = np.concatenate([part.vertices for part in clouds])
    np.testing.assert_allclose(everything, cloud.positions * [1, -1, -1], atol=1e-6)


def test_the_animation_shows_each_view_in_its_time_and_moves_the_camera(scene: Scene4D, path: Path) -> None:
    glb = Glb(path)
    (animation,) = glb.json["animations"]
    names = [node["name"] for node in glb.json["nodes"]]
    shown = {}
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        times = glb.array(sampler["input"])[:, 0]
        np.testing.assert_allclose(times, [0, 0.5, 1, 1.5])
        values = glb.array(sampler["output"])
        assert len(values) == len(times)
        name, what = names[channel["target"]["node"]], channel["target"]["path"]
        if name == "camera":
            assert sampler["interpolation"] == "LINEAR"
            for view, frame in enumerate(scene.frame_indices):
                np.testing.assert_array_equal(
                    values[view], np.float32(glb.nodes[f"camera frame_{frame:05d}"][what])
                )
        else:
            assert (sampler["interpolation"], what) == ("STEP", "scale")
            shown[name] = values[:, 0]
            assert (values == values[:, :1]).all()
    visible = np.stack([shown[f"points frame_{frame:05d}"] for frame in scene.frame_indices])
    np.testing.assert_array_equal(visible, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])


def test_neighbouring_rotations_never_go_the_long_way_round(scene: Scene4D, tmp_path: Path) -> None:
    turns = Rotation.from_euler("y", [[170], [178], [186]], degrees=True).as_matrix()
    pose = scene.geometry.camera_to_world.clone()
    pose[0, :, :3, :3] = torch.from_numpy(turns).float()
    write_glb(
        tmp_path / "scene.glb",
        turned := replace(scene, geometry=replace(scene.geometry, camera_to_world=pose)),
        scene_points(turned, PointSelection(pixel_step=8)),
    )
    glb = Glb(tmp_path / "scene.glb")
    quat = np.array([glb.nodes[f"camera frame_{frame:05d}"]["rotation"] for frame in scene.frame_indices])
    assert (np.sum(quat[1:] * quat[:-1], axis=1) > 0.99).all()


def test_intrinsics_prompt_and_rewards_are_kept(scene: Scene4D, path: Path) -> None:
    glb = Glb(path)
    extras = glb.json["cameras"][1]["extras"]
    K = scene.geometry.intrinsics[0, 1].double()
    assert [extras[name] for name in ("fx", "fy", "cx", "cy")] == [
        float(K[0, 0]),
        float(K[1, 1]),
        float(K[0, 2]),
        float(K[1, 2]),
    ]
    assert (extras["width"], extras["height"]) == (WIDTH, HEIGHT)
    record = glb.json["scenes"][0]["extras"]
    assert record["prompt"] == scene.prompt
    assert record["rewards"] == {"camera_motion": 0.75}


def test_a_single_view_and_a_scene_without_points(scene: Scene4D, tmp_path: Path) -> None:
    one = Scene4D(scene.geometry.select([0]), scene.colours[:1], 8.0, (0,))
    write_glb(tmp_path / "one.glb", one, scene_points(one))
    glb = Glb(tmp_path / "one.glb")
    assert "animations" not in glb.json
    assert len(glb.points(0)[0]) == HEIGHT * WIDTH
    empty = replace(scene, geometry=replace(scene.geometry, depth_z=torch.zeros_like(scene.geometry.depth_z)))
    write_glb(tmp_path / "empty.glb", empty, scene_points(empty))
    glb = Glb(tmp_path / "empty.glb")
    assert "meshes" not in glb.json
    assert len(glb.json["cameras"]) == 3
