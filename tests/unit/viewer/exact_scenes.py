"""Scenes of the procedural world, whose points project exactly onto their own pixels."""

from dataclasses import replace
from itertools import count

import torch

from vggrpo.geometry import SceneGeometry
from vggrpo.viewer import RewardRecord, Scene4D
from vggrpo.world import render_clips, sample_scene

HEIGHT, WIDTH = 36, 48
REWARDS = {
    "camera_motion": RewardRecord(0.75, {"e_rot": 0.25}),
    "reprojection": RewardRecord(float("nan"), {"view_error": (0.5, float("nan"), 0.25)}, "no overlap"),
}


def exact_scene(**changes: object) -> Scene4D:
    """Three views of a clip in which something moves, with a confidence that is different in each pixel."""
    spec = next(spec for index in count() if (spec := sample_scene("validation", index)).is_dynamic)
    clips = render_clips([spec], views="keys", height=HEIGHT, width=WIDTH, num_frames=9)
    surer = torch.arange(clips.geometry.depth_z.numel(), dtype=torch.float32)
    geometry = replace(clips.geometry, confidence=surer.reshape(clips.geometry.depth_z.shape))
    colours = (clips.frames[0] * 255).round().to(torch.uint8)
    scene = Scene4D(
        geometry, colours, 8.0, (0, 4, 8), "exact", clips.captions[0], REWARDS, {"input": "world"}
    )
    return replace(scene, **changes)


def cropped(scene: Scene4D, top: int, left: int) -> Scene4D:
    """The scene without its first rows and columns, so that no principal point is in the middle."""

    def crop(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[..., top:, left:, :]

    geometry = scene.geometry
    intrinsics = geometry.intrinsics.clone()
    intrinsics[..., 0, 2] -= left
    intrinsics[..., 1, 2] -= top
    assert geometry.confidence is not None
    assert geometry.static_mask is not None
    smaller = SceneGeometry(
        geometry.camera_to_world,
        intrinsics,
        geometry.depth_z[..., top:, left:],
        crop(geometry.world_points),
        geometry.confidence[..., top:, left:],
        static_mask=geometry.static_mask[..., top:, left:],
    )
    return replace(scene, geometry=smaller, colours=crop(scene.colours))
