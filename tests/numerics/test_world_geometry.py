"""The world's ground truth against itself and against the shapes it was made of, in float64."""

import math

import pytest
import torch
from torch import Tensor

from vggrpo.geometry import invert_se3, project, transform_points, unproject
from vggrpo.world import SceneSpec, WorldClips, render_clips, sample_scene
from vggrpo.world.paths import SceneMotion, scene_motion

VIEWS = slice(None, None, 4)


@pytest.fixture(scope="module")
def specs() -> list[SceneSpec]:
    """Every shape and every motion, rooms and open ground, steady and shaky."""
    found: dict[tuple, SceneSpec] = {}
    for index in range(400):
        spec = sample_scene("test", index)
        for thing in spec.objects:
            found.setdefault((thing.shape, thing.motion), spec)
        if len(found) == 12:
            break
    assert len(found) == 12
    return list({spec.index: spec for spec in found.values()}.values())


@pytest.fixture(scope="module")
def clips(specs: list[SceneSpec]) -> WorldClips:
    return render_clips(specs, views="keys", dtype=torch.float64, supersample=1)


@pytest.fixture(scope="module")
def motion(specs: list[SceneSpec]) -> SceneMotion:
    return scene_motion(specs, 17).views(VIEWS)


def distance_to_object(spec: SceneSpec, k: int, local: Tensor) -> Tensor:
    """Signed distance (a lower bound of it, outside edges) of points [..., 3] of object k's own frame."""
    thing = spec.objects[k]
    half = torch.tensor(thing.half_extents, dtype=local.dtype)
    if thing.shape == "sphere":
        return local.norm(dim=-1) - half[0]
    if thing.shape == "box":
        return (local.abs() - half).amax(-1)
    radial = local[..., [0, 2]].norm(dim=-1) - half[0]
    return torch.maximum(radial, local[..., 1].abs() - half[1])


def distance_to_surroundings(spec: SceneSpec, points: Tensor) -> Tensor:
    """Distance to the nearest surface from within; negative outside."""
    place = spec.surroundings
    if place.is_room:
        lower, upper = (
            torch.tensor(place.lower, dtype=points.dtype),
            torch.tensor(place.upper, dtype=points.dtype),
        )
        return torch.minimum(points - lower, upper - points).amin(-1)
    return torch.minimum(-points[..., 1], place.dome_radius - points.norm(dim=-1))


def distance_to_scene(spec: SceneSpec, object_to_scene: Tensor, points: Tensor) -> Tensor:
    """Distance bound of scene points [T, ..., 3] to the nearest surface, at T frames."""
    nearest = distance_to_surroundings(spec, points)
    for k in range(len(spec.objects)):
        local = transform_points(invert_se3(object_to_scene[:, k]), points)
        nearest = torch.minimum(nearest, distance_to_object(spec, k, local))
    return nearest


def test_unprojected_depth_is_the_points(clips: WorldClips) -> None:
    geometry = clips.geometry
    points = unproject(geometry.depth_z, geometry.intrinsics, geometry.camera_to_world)
    torch.testing.assert_close(points, geometry.world_points, atol=1e-12, rtol=0)


def test_points_project_to_their_own_pixels(clips: WorldClips) -> None:
    geometry = clips.geometry
    uv, z = project(geometry.world_points, geometry.intrinsics, geometry.camera_to_world)
    v, u = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    torch.testing.assert_close(uv, torch.stack((u, v), -1).double().expand_as(uv), atol=1e-10, rtol=0)
    torch.testing.assert_close(z, geometry.depth_z, atol=1e-12, rtol=0)


def test_points_lie_on_surfaces_and_nothing_is_in_front(
    specs: list[SceneSpec], clips: WorldClips, motion: SceneMotion
) -> None:
    """Every ray ends on a surface, the one the mask names, and meets none before (60 samples a ray)."""
    for row, spec in enumerate(specs):
        poses = motion.object_to_scene[row]
        to_scene = motion.camera_to_scene[row, 0]
        hits = transform_points(to_scene, clips.geometry.world_points[row])
        distance = distance_to_scene(spec, poses, hits)
        assert float(distance.abs().max()) < 1e-9
        for k in range(len(spec.objects)):
            local = transform_points(invert_se3(poses[:, k]), hits)
            on_object = clips.object_mask[row] == k + 1
            assert float(distance_to_object(spec, k, local)[on_object].abs().max()) < 1e-9
        centres = motion.camera_to_scene[row, :, None, None, :3, 3]
        for share in torch.linspace(0, 0.999, 60, dtype=torch.float64):
            before = centres + share * (hits - centres)
            assert float(distance_to_scene(spec, poses, before).min()) > 0


def test_flow_carries_points_with_their_object(
    specs: list[SceneSpec], clips: WorldClips, motion: SceneMotion
) -> None:
    """A moved reference point has the coordinates in its object's frame that it had at the start."""
    geometry = clips.geometry
    moved = geometry.world_points[:, :1] + geometry.scene_flow_from_ref
    for row, spec in enumerate(specs):
        poses = motion.object_to_scene[row]
        in_scene = transform_points(motion.camera_to_scene[row, 0], moved[row])
        for k in range(len(spec.objects)):
            on_object = clips.object_mask[row, 0] == k + 1
            local = transform_points(invert_se3(poses[:, k]), in_scene)[:, on_object]
            torch.testing.assert_close(local, local[:1].expand_as(local), atol=1e-12, rtol=0)
            assert float(distance_to_object(spec, k, local).abs().max()) < 1e-9
        surroundings = clips.object_mask[row, 0] == 0
        assert float(geometry.scene_flow_from_ref[row][:, surroundings].abs().max()) == 0


def depth_seen_at(clips: WorldClips, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of world points [B, T, H, W, 3] in view i: z, and least and greatest depth of the 4 pixels around."""
    geometry = clips.geometry
    uv, z = project(points, geometry.intrinsics, geometry.camera_to_world)
    column, row = uv[..., 0].floor().long(), uv[..., 1].floor().long()
    inside = (z > 0) & (column >= 0) & (column < 63) & (row >= 0) & (row < 47)
    flat = geometry.depth_z.flatten(2)
    corners = []
    for down in (0, 1):
        for right in (0, 1):
            index = (row.clamp(0, 46) + down) * 64 + column.clamp(0, 62) + right
            corners.append(flat.gather(2, index.flatten(2)).view(z.shape))
    stack = torch.stack(corners)
    nan = torch.where(inside, 0.0, math.nan)
    return z + nan, stack.amin(0), stack.amax(0)


def test_moved_points_are_seen_where_nothing_hides_them(clips: WorldClips) -> None:
    """Points that flow moves are never in front of what view i sees there; most are what it sees."""
    geometry = clips.geometry
    moved = geometry.world_points[:, :1] + geometry.scene_flow_from_ref
    z, nearest, farthest = depth_seen_at(clips, moved)
    known = z.isfinite()
    slack = 0.02 * z
    in_front = (z < nearest - slack)[known]
    assert float(in_front.double().mean()) < 0.005
    seen = ((z > nearest - slack) & (z < farthest + slack))[known]
    assert float(seen.double().mean()) > 0.85
    still = geometry.world_points[:, :1].expand_as(moved)
    z_still, near_still, far_still = depth_seen_at(clips, still)
    moving = (geometry.scene_flow_from_ref.norm(dim=-1) > 0.3) & z.isfinite() & z_still.isfinite()
    assert int(moving.sum()) > 100

    def agreement(depth: Tensor, low: Tensor, high: Tensor) -> float:
        return float(((depth > low - 0.02 * depth) & (depth < high + 0.02 * depth))[moving].double().mean())

    assert agreement(z, nearest, farthest) > 1.5 * agreement(z_still, near_still, far_still)


def test_static_points_agree_across_views(
    specs: list[SceneSpec], clips: WorldClips, motion: SceneMotion
) -> None:
    """Static points of every view lie on the surfaces of view 0's moment too; dynamic ones need not."""
    geometry = clips.geometry
    for row, spec in enumerate(specs):
        to_scene = motion.camera_to_scene[row, 0]
        points = transform_points(to_scene, geometry.world_points[row])
        at_start = motion.object_to_scene[row, :1].expand(5, -1, -1, -1)
        distance = distance_to_scene(spec, at_start, points).abs()
        static = geometry.static_mask[row]
        assert float(distance[static].max()) < 1e-9
        moving = [k for k, thing in enumerate(spec.objects) if thing.motion in ("linear", "circular")]
        for k in moving:
            elsewhere = clips.object_mask[row, 1:] == k + 1
            assert float(distance[1:][elsewhere].max()) > 0.05


def test_the_static_mask_is_the_objects_that_rest(specs: list[SceneSpec], clips: WorldClips) -> None:
    for row, spec in enumerate(specs):
        moving = [k + 1 for k, thing in enumerate(spec.objects) if thing.motion != "rest"]
        dynamic = torch.isin(clips.object_mask[row], torch.tensor(moving, dtype=torch.long))
        assert torch.equal(clips.geometry.static_mask[row], ~dynamic)
        assert bool(clips.is_dynamic[row]) == bool(moving)


def test_single_precision_is_close_to_double(specs: list[SceneSpec], clips: WorldClips) -> None:
    single = render_clips(specs, views="keys", supersample=1)
    same = single.object_mask == clips.object_mask
    assert float(same.double().mean()) > 0.9999
    error = (single.geometry.depth_z - clips.geometry.depth_z).abs() / clips.geometry.depth_z
    assert float(error[same].quantile(0.999)) < 1e-5
    flow_error = (single.geometry.scene_flow_from_ref - clips.geometry.scene_flow_from_ref).abs()
    agrees = same[:, :1].expand_as(flow_error[..., 0])
    assert float(flow_error[agrees].quantile(0.999)) < 1e-5


def test_the_field_of_view_is_the_cameras(specs: list[SceneSpec], clips: WorldClips) -> None:
    for row, spec in enumerate(specs):
        K = clips.geometry.intrinsics[row, 0]
        edge = math.tan(math.radians(spec.camera.fov_degrees) / 2)
        assert float((63.5 - K[0, 2]) / K[0, 0]) == pytest.approx(edge)
        assert float((-0.5 - K[0, 2]) / K[0, 0]) == pytest.approx(-edge)
        assert float(K[0, 0]) == float(K[1, 1])


def test_a_texture_sticks_to_its_object() -> None:
    """Colour is a function of the surface point: moving points keep their albedo's place across frames."""
    spec = next(
        s
        for s in (sample_scene("test", i) for i in range(300))
        if not s.is_shaky
        and len(s.objects) == 1
        and s.objects[0].motion == "linear"
        and s.objects[0].texture.pattern != "plain"
        and s.objects[0].shape == "box"
    )
    clips = render_clips([spec], views="keys", height=192, width=256)
    geometry = clips.geometry
    moved = geometry.world_points[:, 0] + geometry.scene_flow_from_ref[:, 2]
    uv, z = project(moved, geometry.intrinsics[:, 2], geometry.camera_to_world[:, 2])
    column, row = uv[..., 0].round().long()[0], uv[..., 1].round().long()[0]
    inside = (clips.object_mask[0, 0] == 1) & (column >= 0) & (column < 256) & (row >= 0) & (row < 192)
    seen = torch.where(inside, geometry.depth_z[0, 2][row.clamp(0, 191), column.clamp(0, 255)], 0.0)
    visible = inside & ((seen - z[0]).abs() < 0.02)
    assert int(visible.sum()) > 500
    then = clips.frames[0, 0][visible]
    now = clips.frames[0, 2][row[visible], column[visible]]
    assert float((then - now).abs().mean()) < 0.02
    by_chance = now[torch.randperm(len(now), generator=torch.Generator().manual_seed(0))]
    assert float((then - by_chance).abs().mean()) > 0.1
