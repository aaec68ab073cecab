"""A prepared scene as JSON with one compressed block; assets/payload.js unpacks it."""

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggrpo.viewer.prepared import PreparedScene

VALID, STATIC = 1, 2
"""Bits of a point's flags."""
ERROR_REACH = 0.1
"""Reprojection error, in median depths, at the end of the heat map; what is greater looks the same."""
COMPRESSION = 6
"""Of zlib; 9 takes several times as long for a hundredth less."""
NOT_COMPARED = 255
"""The error byte of points that were compared with nothing."""
LEVELS = 65535
"""Steps of a coordinate from one end of the scene's bounding box to the other."""


def scene_payload(scene: PreparedScene) -> dict[str, Any]:
    """The JSON of a scene.

    Coordinates are quantised to 16 bits of the scene's bounding box; colours, confidence and errors to 8
    bits.
    "arrays" describes, in order, what lies in "data" (zlib, base64): see `pack_arrays`.
    """
    low, high = _bounds(scene)
    arrays: dict[str, tuple[NDArray[Any], bool]] = {
        "position": (_quantised(scene.points, low, high, scene.valid), True),
        "colour": (np.moveaxis(scene.colours, -1, 0), True),
        "flags": (scene.valid * np.uint8(VALID) + scene.static * np.uint8(STATIC), True),
        "error": (_error_bytes(scene.error), True),
        "camera": (scene.camera_to_world[:, :3].astype(np.float32), False),
        "intrinsics": (
            np.stack([scene.intrinsics[:, i, j] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))], axis=1),
            False,
        ),
        "acceleration": (scene.acceleration.astype(np.float32), False),
        "viewError": (scene.view_error.astype(np.float32), False),
    }
    if scene.confidence is not None:
        arrays["confidence"] = (np.floor(scene.confidence * 255).astype(np.uint8), True)
    if len(scene.arrows):
        arrays["arrows"] = (_quantised(scene.arrows, low, high), True)
    layout, data = pack_arrays(arrays)
    views, height, width = scene.valid.shape
    return {
        "label": scene.label,
        "prompt": scene.prompt,
        "times": [round(time, 4) for time in scene.times],
        "views": views,
        "height": height,
        "width": width,
        "low": low.tolist(),
        "high": high.tolist(),
        "centre": scene.centre.tolist(),
        "radius": scene.radius,
        "rewards": [[name, value if np.isfinite(value) else None] for name, value in scene.rewards],
        "knowsMotion": scene.knows_motion,
        "numArrows": len(scene.arrows),
        "errorReach": ERROR_REACH,
        "arrays": layout,
        "data": data,
    }


def pack_arrays(arrays: Mapping[str, tuple[NDArray[Any], bool]]) -> tuple[list[dict[str, Any]], str]:
    """Arrays of uint8, uint16 or float32 in one block.

    Args:
        arrays: by name; with each, whether neighbouring elements are alike. Then their differences are
            stored, modulo the type's range, which compress far better. Bytes of uint16 lie in two planes, low
            before high; float32 is little-endian.

    Returns:
        "name", "type" (u8, u16, f32), "shape" and "delta" of each array, in order, and the base64 of their
        bytes after zlib.
    """
    layout, parts = [], []
    names = {"uint8": "u8", "uint16": "u16", "float32": "f32"}
    for name, (array, alike) in arrays.items():
        kind = names[array.dtype.name]
        flat = np.ascontiguousarray(array).reshape(-1)
        if alike:
            # Unsigned differences wrap around, as the running sums that undo them do.
            flat = np.diff(flat, prepend=flat.dtype.type(0))
        if kind == "u16":
            flat = np.concatenate([(flat & 255).astype(np.uint8), (flat >> 8).astype(np.uint8)])
        layout.append({"name": name, "type": kind, "shape": list(array.shape), "delta": alike})
        parts.append(flat.astype("<f4").tobytes() if kind == "f32" else flat.tobytes())
    return layout, base64.b64encode(zlib.compress(b"".join(parts), COMPRESSION)).decode("ascii")


def _bounds(scene: PreparedScene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The corners [3] of the box around all points and arrows; no side is empty."""
    inside = np.concatenate([scene.points[scene.valid], scene.arrows.reshape(-1, 3)]).astype(np.float64)
    low, high = inside.min(axis=0), inside.max(axis=0)
    return low, np.maximum(high, low + 1e-6)


def _quantised(
    points: NDArray[np.float32],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint16]:
    """Points [..., 3] as uint16 [3, ...]; 0 where not valid."""
    share = np.clip((points - low) / (high - low), 0, 1)
    steps = np.round(share * LEVELS).astype(np.uint16)
    if valid is not None:
        steps[~valid] = 0
    return np.moveaxis(steps, -1, 0)


def _error_bytes(error: NDArray[np.float32]) -> NDArray[np.uint8]:
    compared = np.isfinite(error)
    share = np.clip(np.where(compared, error, 0) / ERROR_REACH, 0, 1)
    return np.where(compared, np.round(share * (NOT_COMPARED - 1)), NOT_COMPARED).astype(np.uint8)
