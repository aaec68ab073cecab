"""Scenes as Rerun recordings (.rrd): everything on the video's timeline, for https://rerun.io's viewer.

Rerun's camera axes are OpenCV's and its pixel coordinates count from 0, as here, so nothing is converted.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vggrpo.config.errors import ConfigError
from vggrpo.geometry import valid_depth
from vggrpo.io import atomic_file
from vggrpo.viewer.export_cameras import scene_cameras
from vggrpo.viewer.export_points import PointCloud
from vggrpo.viewer.scene_file import Scene4D

if TYPE_CHECKING:
    from rerun import RecordingStream

MISSING = 'writing .rrd files needs rerun-sdk, which is not installed; run pip install "vggrpo[rerun]"'
MAX_ARROWS = 1000
"""Scene-flow arrows of a view."""


def write_rrd(path: Path | str, scene: Scene4D, cloud: PointCloud) -> None:
    """Writes one recording, atomically, on the timelines `frame` (of the video) and `time` (seconds).

    Entities: `world/points`; `world/camera`, with `image` and `depth`; `world/path`, all camera centres;
    `world/flow`, arrows from where points of view 0 were to where they are, of those that move (of all, if
    no mask says which); `rewards/<name>/<part>`, what rewards say of single views; `scene`, a text.

    Args:
        path: of the file.
        scene: with the cameras and pictures.
        cloud: points of the same scene.

    Raises:
        ConfigError: if rerun-sdk is not installed, or a camera is not finite or no pinhole camera.
        DiskFullError: if the space runs out.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise ConfigError(MISSING) from error
    pose, K = scene_cameras(scene, "Rerun")
    # Viewers merge recordings of one identity, so each scene has its own.
    content = hashlib.sha256(scene.label.encode() + pose.tobytes() + cloud.positions.tobytes())
    with (
        atomic_file(path) as temporary,
        rr.RecordingStream("vggrpo", recording_id=content.hexdigest()) as stream,
    ):
        stream.save(temporary)
        _log_static(rr, stream, scene, pose)
        for view, frame in enumerate(scene.frame_indices):
            stream.set_time("frame", sequence=frame)
            stream.set_time("time", duration=scene.times[view])
            _log_view(rr, stream, scene, view, pose[view], K[view])
            points = cloud.of_view(view)
            stream.log("world/points", rr.Points3D(points.positions, colors=points.colours))
        stream.disconnect()


def _log_static(rr: Any, stream: "RecordingStream", scene: Scene4D, pose: np.ndarray) -> None:
    stream.log("world", rr.ViewCoordinates.RDF, static=True)
    stream.log("world/path", rr.LineStrips3D([pose[:, :3, 3]]), static=True)
    lines = [f"# {scene.label}", scene.prompt or ""]
    lines += [f"- {name}: {reward.value:.4g}" for name, reward in scene.rewards.items()]
    text = rr.TextDocument("\n\n".join(filter(None, lines)), media_type="text/markdown")
    stream.log("scene", text, static=True)


def _log_view(
    rr: Any, stream: "RecordingStream", scene: Scene4D, view: int, pose: np.ndarray, K: np.ndarray
) -> None:
    geometry = scene.geometry
    stream.log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
    stream.log("world/camera", rr.Pinhole(image_from_camera=K, width=geometry.width, height=geometry.height))
    stream.log("world/camera/image", rr.Image(scene.colours[view].cpu().numpy()))
    depth = geometry.depth_z[0, view].detach().cpu().float()
    depth = torch.where(valid_depth(depth), depth, 0.0)
    stream.log("world/camera/depth", rr.DepthImage(depth.numpy(), meter=1.0))
    if geometry.scene_flow_from_ref is not None:
        origins, vectors = _moving(scene, view)
        stream.log("world/flow", rr.Arrows3D(origins=origins, vectors=vectors))
    for name, reward in scene.rewards.items():
        for part, values in reward.parts.items():
            if isinstance(values, tuple) and len(values) == scene.num_views:
                stream.log(f"rewards/{name}/{part}", rr.Scalars(values[view]))


def _moving(scene: Scene4D, view: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of view 0 that move, [N, 3], and their way to view `view`; every n-th of many."""
    geometry = scene.geometry.take(0).to("cpu", torch.float32).detach()
    assert geometry.scene_flow_from_ref is not None
    flow, origins = geometry.scene_flow_from_ref[0, view], geometry.world_points[0, 0]
    moving = valid_depth(geometry.depth_z[0, 0]) & origins.isfinite().all(-1) & flow.isfinite().all(-1)
    if geometry.static_mask is not None:
        moving &= ~geometry.static_mask[0, 0]
    step = -(-int(moving.sum()) // MAX_ARROWS) or 1
    return origins[moving][::step].numpy(), flow[moving][::step].numpy()
