"""A scene as a folder of files."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from vggrpo.config.errors import ConfigError
from vggrpo.config.reconstruct import SceneExport
from vggrpo.io import atomic_folder
from vggrpo.viewer.export_colmap import write_colmap
from vggrpo.viewer.export_depth import write_depth_images
from vggrpo.viewer.export_gltf import write_glb
from vggrpo.viewer.export_points import PointSelection, scene_points, write_ply, write_ply_frames
from vggrpo.viewer.export_rerun import MISSING, write_rrd
from vggrpo.viewer.scene_file import Scene4D, save_scene

SCENE_NAME = "scene.safetensors"


def check_exports(folder: Path, exports: Sequence[SceneExport], overwrite: bool) -> None:
    """Makes sure that the folder can be made, or is a scene's that may be replaced, and that every export has
    its library.

    Raises:
        ConfigError: if not.
    """
    if folder.exists() and not overwrite:
        raise ConfigError(f"{folder} exists already; choose another --output, or replace it with --overwrite")
    if folder.exists() and not (folder / SCENE_NAME).is_file():
        raise ConfigError(
            f"{folder} exists and has no {SCENE_NAME}, so it is not replaced; choose another --output"
        )
    if "rrd" in exports and find_spec("rerun") is None:
        raise ConfigError(MISSING)


def export_scene(
    folder: Path, scene: Scene4D, exports: Sequence[SceneExport], selection: PointSelection, overwrite: bool
) -> None:
    """Writes `scene.safetensors` and the exports, completely or not at all.

    npz: scene.npz; ply: points.ply; ply-frames: points/; glb: scene.glb; colmap: colmap/, of static points
    only; depth: depth/; rrd: scene.rrd.

    Raises:
        ConfigError: see `check_exports`; also if an export cannot hold the scene's cameras.
        DiskFullError: if the space runs out.
    """
    check_exports(folder, exports, overwrite)
    cloud = scene_points(scene, selection)
    with atomic_folder(folder, replace=overwrite) as temporary:
        save_scene(temporary / SCENE_NAME, scene)
        if "npz" in exports:
            save_scene(temporary / "scene.npz", scene)
        if "ply" in exports:
            write_ply(temporary / "points.ply", cloud)
        if "ply-frames" in exports:
            write_ply_frames(temporary / "points", scene, cloud)
        if "glb" in exports:
            write_glb(temporary / "scene.glb", scene, cloud)
        if "colmap" in exports:
            static = PointSelection(selection.confidence_quantile, selection.pixel_step, static_only=True)
            write_colmap(temporary / "colmap", scene, scene_points(scene, static))
        if "depth" in exports:
            write_depth_images(temporary / "depth", scene)
        if "rrd" in exports:
            write_rrd(temporary / "scene.rrd", scene, cloud)
