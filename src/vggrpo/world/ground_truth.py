"""Exact geometry of a batch of clips, at pixel centres."""

import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry, intrinsics_from_fov, invert_se3
from vggrpo.world.packing import FIRST_OBJECT, PackedScenes, ray_bundle
from vggrpo.world.paths import SceneMotion
from vggrpo.world.tracing import trace


def render_geometry(
    packed: PackedScenes, motion: SceneMotion, height: int, width: int
) -> tuple[Tensor, SceneGeometry]:
    """Object mask [B, T, H, W] long and geometry in the camera frame of frame 0.

    The mask is 0 on the surroundings and k + 1 on object k. Every pixel sees a surface: the sky is a dome.
    """
    rays = ray_bundle(packed, motion, height, width, supersample=1)
    hits = trace(packed, rays)
    dtype = hits.depth.dtype
    object_mask = (hits.surface - (FIRST_OBJECT - 1)).clamp_(min=0).long()

    scene_to_world = invert_se3(motion.camera_to_scene[:, :1])
    camera_to_world = scene_to_world @ motion.camera_to_scene
    camera_to_world[:, 0] = torch.eye(4, dtype=torch.float64)
    camera_to_world = camera_to_world.to(dtype)
    directions = torch.stack(rays.directions(camera_to_world[..., :3, :3]), dim=-1)
    world_points = hits.depth[..., None] * directions + camera_to_world[:, :, None, None, :3, 3]

    displacement = _displacement(motion, scene_to_world)
    is_static = (displacement == 0).flatten(3).all(-1).all(1)
    static_mask = _per_surface(is_static, object_mask, of_surroundings=True)
    num_views = camera_to_world.shape[1]
    intrinsics = intrinsics_from_fov(packed.fov, height, width).to(dtype)[:, None]
    geometry = SceneGeometry(
        camera_to_world=camera_to_world,
        intrinsics=intrinsics.expand(-1, num_views, -1, -1).contiguous(),
        depth_z=hits.depth,
        world_points=world_points,
        scene_flow_from_ref=_flow(displacement.to(dtype), world_points[:, 0], object_mask[:, 0], num_views),
        static_mask=static_mask,
    )
    return object_mask, geometry


def _per_surface(values: Tensor, object_mask: Tensor, of_surroundings: bool) -> Tensor:
    """values [B, O] of each object spread over the pixels [B, T, H, W] that show it."""
    table = torch.nn.functional.pad(values, (1, 0), value=of_surroundings)
    return table.gather(1, object_mask.flatten(1)).view(object_mask.shape)


def _displacement(motion: SceneMotion, scene_to_world: Tensor) -> Tensor:
    """D [B, T, O, 4, 4] float64: X(t_i) - X(t_0) = D_i X(t_0) of objects' homogeneous world points."""
    poses = motion.object_to_scene
    since_start = poses @ invert_se3(poses[:, :1]) - torch.eye(4, dtype=torch.float64)
    to_world = scene_to_world[:, :, None]
    moved = (poses != poses[:, :1]).flatten(3).any(-1)
    return (to_world @ since_start @ invert_se3(to_world)) * moved[..., None, None]


def _flow(displacement: Tensor, points: Tensor, object_mask: Tensor, num_views: int) -> Tensor:
    """Scene flow [B, T, H, W, 3] of the reference view's points [B, H, W, 3], computed where objects are."""
    flow = points.new_zeros(len(points), num_views, *points.shape[1:])
    scene, row, column = torch.nonzero(object_mask, as_tuple=True)
    x, y, z = points[scene, row, column][:, None, :, None].unbind(2)
    matrix = displacement[scene, :, object_mask[scene, row, column] - 1]
    flow[scene, :, row, column] = (
        matrix[..., :3, 0] * x + matrix[..., :3, 1] * y + matrix[..., :3, 2] * z + matrix[..., :3, 3]
    )
    return flow
