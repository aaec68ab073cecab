"""Scenes as binary glTF 2.0 (.glb): points of each view, cameras, and an animation that plays the video.

glTF's conventions: right-handed with +y up, cameras that look along -z; vertex colours are linear, not sRGB.
So points and cameras are turned by half a turn about x, `FLIP`, here and nowhere else.
"""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vggrpo.geometry import matrix_to_quat_xyzw, valid_depth
from vggrpo.io import write_bytes
from vggrpo.viewer.export_cameras import scene_cameras
from vggrpo.viewer.export_points import PointCloud, frame_name
from vggrpo.viewer.scene_file import Scene4D

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenCV axes to glTF's and back: of the world on the left of camera_to_world, of the camera on its right."""

FLOAT, UNSIGNED_SHORT = 5126, 5123
ARRAY_BUFFER = 34962
POINTS = 0
JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942


class _Buffer:
    """The binary chunk, and the views and accessors that describe it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: NDArray, bounds: bool = False, vertices: bool = False) -> int:
        """The number of a new accessor of `array` [N] or [N, 3 or 4], float32 or normalised uint16."""
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(view | ({"target": ARRAY_BUFFER} if vertices else {}))
        self.data += data
        self.data += b"\0" * (-len(self.data) % 4)
        kinds = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
        accessor: dict[str, Any] = {
            "bufferView": len(self.views) - 1,
            "componentType": FLOAT if array.dtype == np.float32 else UNSIGNED_SHORT,
            "count": len(array),
            "type": kinds[1 if array.ndim == 1 else array.shape[1]],
        }
        if array.dtype == np.uint16:
            accessor["normalized"] = True
        if bounds:
            columns = array.reshape(len(array), -1)
            accessor |= {"min": columns.min(axis=0).tolist(), "max": columns.max(axis=0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def write_glb(path: Path | str, scene: Scene4D, cloud: PointCloud) -> None:
    """Writes one self-contained .glb file, atomically.

    Nodes: "points frame_00004" and "camera frame_00004" for each view, and "camera", which travels. A program
    that plays the animation shows each view's points in their time, and moves that camera; one that does not
    shows all points at once. A glTF camera has its principal point in the middle; the exact intrinsics are in
    the `extras` of each camera, and prompt, rewards and times in those of the scene.

    Args:
        path: of the file.
        scene: with the cameras.
        cloud: points of the same scene.

    Raises:
        ConfigError: if a camera is not finite or no pinhole camera.
        DiskFullError: if the space runs out.
    """
    pose, K = scene_cameras(scene, "glTF")
    buffer = _Buffer()
    nodes: list[dict[str, Any]] = []
    meshes: list[dict[str, Any]] = []
    cameras = [_camera(scene, view, K[view]) for view in range(scene.num_views)]
    rotation, translation = _camera_motion(pose)
    for view, frame in enumerate(scene.frame_indices):
        node: dict[str, Any] = {"name": f"points {frame_name(frame)}"}
        part = cloud.of_view(view)
        if len(part):
            node["mesh"] = len(meshes)
            meshes.append({"primitives": [_points(buffer, part)]})
        nodes.append(node)
    for view, frame in enumerate(scene.frame_indices):
        place = {"rotation": rotation[view].tolist(), "translation": translation[view].tolist()}
        nodes.append({"name": f"camera {frame_name(frame)}", "camera": view, **place})
    nodes.append({**nodes[scene.num_views], "name": "camera"})
    gltf: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "vggrpo"},
        "scene": 0,
        "scenes": [{"name": scene.label, "nodes": list(range(len(nodes))), "extras": _record(scene)}],
        "nodes": nodes,
        "cameras": cameras,
    }
    if meshes:
        # Colours are those of the pictures: lights must not change them.
        gltf["materials"] = [{"extensions": {"KHR_materials_unlit": {}}}]
        gltf |= {"meshes": meshes, "extensionsUsed": ["KHR_materials_unlit"]}
    if scene.num_views > 1:
        gltf["animations"] = [_animation(buffer, scene, rotation, translation)]
    gltf |= {"bufferViews": buffer.views, "accessors": buffer.accessors}
    write_bytes(path, _glb({name: value for name, value in gltf.items() if value != []}, bytes(buffer.data)))


def _points(buffer: _Buffer, cloud: PointCloud) -> dict[str, Any]:
    positions = (cloud.positions @ FLIP[:3, :3]).astype(np.float32)
    attributes = {
        "POSITION": buffer.add(positions, bounds=True, vertices=True),
        "COLOR_0": buffer.add(linear_colours(cloud.colours), vertices=True),
    }
    return {"attributes": attributes, "mode": POINTS, "material": 0}


def linear_colours(colours: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """sRGB [N, 3] uint8 to linear RGBA [N, 4] of 16 bits, of which 8 would not tell dark colours apart."""
    srgb = np.arange(256) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    table = np.round(linear * 65535).astype(np.uint16)
    return np.concatenate([table[colours], np.full((len(colours), 1), 65535, np.uint16)], axis=1)


def _camera(scene: Scene4D, view: int, K: NDArray[np.float64]) -> dict[str, Any]:
    height, width = scene.geometry.height, scene.geometry.width
    half_width, half_height = width / 2 / K[0, 0], height / 2 / K[1, 1]
    depth = scene.geometry.depth_z[0, view]
    valid = depth[valid_depth(depth)]
    near = 0.01 * float(valid.median()) if len(valid) else 0.01
    perspective = {
        "yfov": 2 * math.atan(half_height),
        "aspectRatio": half_width / half_height,
        "znear": near,
    }
    intrinsics = {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
    extras = {**intrinsics, "width": width, "height": height, "pixel_centres": "integers"}
    return {"type": "perspective", "perspective": perspective, "extras": extras}


def _camera_motion(pose: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rotations [T, 4], quaternions x y z w of one hemisphere, and translations [T, 3] of camera_to_world."""
    turned = FLIP @ pose @ FLIP
    quat_xyzw = matrix_to_quat_xyzw(torch.from_numpy(turned[:, :3, :3])).numpy()
    # q and -q are one rotation; between neighbours of opposite sign an animation would go the long way round.
    for view in range(1, len(quat_xyzw)):
        if quat_xyzw[view] @ quat_xyzw[view - 1] < 0:
            quat_xyzw[view] *= -1
    return quat_xyzw.astype(np.float32), turned[:, :3, 3].astype(np.float32)


def _animation(
    buffer: _Buffer, scene: Scene4D, rotation: NDArray[np.float32], translation: NDArray[np.float32]
) -> dict[str, Any]:
    """Scale 1 of each view's points in their time and 0 else, which hides them; and the moving camera."""
    times = np.array(scene.times)
    # The last view stays for as long as the one before it.
    keys = np.append(times, 2 * times[-1] - times[-2]) - times[0]
    time = buffer.add(keys.astype(np.float32), bounds=True)
    channels: list[tuple[int, str, str, NDArray[np.float32]]] = []
    for view in range(scene.num_views):
        shown = np.zeros((len(keys), 3), np.float32)
        shown[view] = 1
        shown[-1] = shown[-2]
        channels.append((view, "scale", "STEP", shown))
    travelling = 2 * scene.num_views
    for name, values in (("rotation", rotation), ("translation", translation)):
        channels.append((travelling, name, "LINEAR", np.append(values, values[-1:], axis=0)))
    return {
        "name": "video",
        "samplers": [
            {"input": time, "interpolation": how, "output": buffer.add(values)}
            for _, _, how, values in channels
        ],
        "channels": [
            {"sampler": number, "target": {"node": node, "path": name}}
            for number, (node, name, _, _) in enumerate(channels)
        ],
    }


def _record(scene: Scene4D) -> dict[str, Any]:
    rewards = {name: reward.value for name, reward in scene.rewards.items() if math.isfinite(reward.value)}
    return {"prompt": scene.prompt, "rewards": rewards, "times": scene.times}


def _glb(gltf: dict[str, Any], binary: bytes) -> bytes:
    """The container: a header, then a JSON chunk and a binary one, each padded to 4 bytes."""
    if binary:
        gltf["buffers"] = [{"byteLength": len(binary)}]
    text = json.dumps(gltf, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), JSON_CHUNK) + text
    if binary:
        chunks += struct.pack("<II", len(binary), BINARY_CHUNK) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
