"""4D scenes as files: saved without loss, exported to the formats of other programs, and viewed."""

from vggrpo.viewer.export_colmap import write_colmap
from vggrpo.viewer.export_depth import write_depth_images
from vggrpo.viewer.export_gltf import write_glb
from vggrpo.viewer.export_points import PointCloud, PointSelection, scene_points, write_ply, write_ply_frames
from vggrpo.viewer.export_rerun import write_rrd
from vggrpo.viewer.html import scene_fragment, scene_page, scene_script, write_scene_page
from vggrpo.viewer.scene_building import build_scene, depth_colours
from vggrpo.viewer.scene_file import RewardRecord, Scene4D, distinct_labels, load_scene, save_scene

__all__ = [
    "PointCloud",
    "PointSelection",
    "RewardRecord",
    "Scene4D",
    "build_scene",
    "depth_colours",
    "distinct_labels",
    "load_scene",
    "save_scene",
    "scene_fragment",
    "scene_page",
    "scene_points",
    "scene_script",
    "write_colmap",
    "write_depth_images",
    "write_glb",
    "write_ply",
    "write_ply_frames",
    "write_rrd",
    "write_scene_page",
]
