"""Depth maps as 16-bit grey PNG files, for programs that read RGB-D video."""

from pathlib import Path

import cv2
import numpy as np
import torch

from vggrpo.geometry import valid_depth
from vggrpo.io import write_bytes, write_json
from vggrpo.viewer.export_points import frame_name
from vggrpo.viewer.scene_file import Scene4D

DEPTH_NAME = "depth.json"
MAX_VALUE = 65535


def write_depth_images(folder: Path | str, scene: Scene4D) -> None:
    """Writes `<folder>/frame_00004.png` for each view, numbered by the video's frames, and `depth.json`.

    depth_z = scale * value, in scene units along the optical axis; value 0 is no surface. `scale` is one
    number for the whole video, in depth.json: the greatest depth over 65535. Rounding moves a depth by at
    most scale / 2; a depth below that is stored as `scale`, since 0 is taken.

    Raises:
        DiskFullError: if the space runs out.
    """
    depth_z = scene.geometry.depth_z[0].detach().cpu().double()
    valid = valid_depth(depth_z)
    greatest = float(depth_z[valid].max()) if bool(valid.any()) else 1.0
    scale = greatest / MAX_VALUE
    values = torch.where(valid, (depth_z / scale).round().clamp(1, MAX_VALUE), 0.0).numpy().astype(np.uint16)
    names = [f"{frame_name(frame)}.png" for frame in scene.frame_indices]
    for name, image in zip(names, values, strict=True):
        write_bytes(Path(folder) / name, cv2.imencode(".png", image)[1].tobytes())
    description = {"depth_z": "scale * value, in scene units; value 0 is no surface", "scale": scale}
    write_json(Path(folder) / DEPTH_NAME, {**description, "files": names})
