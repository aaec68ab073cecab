import dataclasses
import itertools

import pytest
import torch

from vggrpo.geometry import so3_log
from vggrpo.world import WorldClips, clip_stream, render_clips, sample_scene
from vggrpo.world.packing import pack_scenes
from vggrpo.world.paths import SceneMotion, scene_motion
from vggrpo.world.rendering import render_packed


@pytest.fixture(scope="module")
def specs() -> list:
    return [sample_scene("train", index) for index in range(6)]


@pytest.fixture(scope="module")
def clips(specs: list) -> WorldClips:
    return render_clips(specs)


def equal(first: WorldClips, second: WorldClips) -> bool:
    mine, theirs = first.geometry.as_dict(), second.geometry.as_dict()
    return (
        torch.equal(first.frames, second.frames)
        and torch.equal(first.object_mask, second.object_mask)
        and mine.keys() == theirs.keys()
        and all(torch.equal(mine[name], theirs[name]) for name in mine)
    )


def part_of(clips: WorldClips, rows: slice, frames: slice = slice(None)) -> WorldClips:
    geometry = clips.geometry.take(rows).select(frames)
    return WorldClips(
        clips.frames[rows, frames],
        geometry,
        clips.captions[rows],
        clips.is_dynamic[rows],
        clips.is_shaky[rows],
        clips.object_mask[rows, frames],
    )


def test_shapes_types_and_ranges(clips: WorldClips, specs: list) -> None:
    assert clips.frames.shape == (6, 17, 48, 64, 3)
    assert clips.frames.dtype == torch.float32
    assert float(clips.frames.min()) >= 0
    assert float(clips.frames.max()) <= 1
    assert clips.object_mask.shape == (6, 17, 48, 64)
    assert clips.object_mask.dtype == torch.int64
    assert clips.captions == [spec.caption for spec in specs]
    assert clips.is_dynamic.tolist() == [spec.is_dynamic for spec in specs]
    assert clips.is_shaky.tolist() == [spec.is_shaky for spec in specs]
    for tensor in clips.geometry.as_dict().values():
        assert bool(tensor.isfinite().all())
    assert float(clips.geometry.depth_z.min()) > 0.3
    assert 2 < float(clips.geometry.depth_z.median()) < 5


def test_rendering_is_deterministic(clips: WorldClips, specs: list) -> None:
    assert equal(clips, render_clips(specs))


@pytest.mark.parametrize("row", [0, 3, 5])
def test_a_clip_is_the_same_bit_for_bit_alone_and_in_a_batch(
    clips: WorldClips, specs: list, row: int
) -> None:
    assert equal(part_of(clips, slice(row, row + 1)), render_clips(specs[row : row + 1]))


def test_key_views_are_views_of_the_clip(clips: WorldClips, specs: list) -> None:
    keys = render_clips(specs, views="keys")
    assert keys.frames.shape[1] == 5
    assert equal(keys, part_of(clips, slice(None), slice(None, None, 4)))


def test_memory_chunks_change_nothing(
    clips: WorldClips, specs: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggrpo.world.rendering.MAX_RAYS", 3 * 48 * 64 * 4)
    assert equal(part_of(clips, slice(0, 2)), render_clips(specs[:2]))


def test_every_object_is_seen_at_the_start(clips: WorldClips, specs: list) -> None:
    for row, spec in enumerate(specs):
        for k in range(len(spec.objects)):
            seen = clips.object_mask[row, 0] == k + 1
            assert int(seen.any(0).sum()) >= 6
            assert int(seen.any(1).sum()) >= 6
        assert int(clips.object_mask[row].max()) <= len(spec.objects)


def test_views_overlap(specs: list, clips: WorldClips) -> None:
    """At least a third of what the first view shows is inside the last one's picture."""
    geometry = clips.geometry
    local = geometry.world_points[:, 0] - geometry.camera_to_world[:, -1, None, None, :3, 3]
    x, y, z = (local @ geometry.camera_to_world[:, -1, None, :3, :3]).unbind(-1)
    focal = geometry.intrinsics[:, -1, 0, 0, None, None]
    inside = (z > 0) & ((x / z * focal).abs() < 32) & ((y / z * focal).abs() < 24)
    assert float(inside.float().mean((1, 2)).min()) > 0.33


def true_jerk(clips: WorldClips) -> tuple[torch.Tensor, torch.Tensor]:
    """Third differences of centres and second differences of rotation vectors on key views, [B] each."""
    poses = clips.geometry.camera_to_world.double()
    centres = poses[..., :3, 3].diff(n=3, dim=1).norm(dim=-1).mean(1)
    turns = so3_log(poses[:, :-1, :3, :3].mT @ poses[:, 1:, :3, :3])
    return centres, turns.diff(n=2, dim=1).norm(dim=-1).mean(1)


def test_true_camera_jerk_separates_shaky_from_steady_clips() -> None:
    clips = render_clips([sample_scene("train", i) for i in range(30)], views="keys", height=2, width=2)
    for jerk in true_jerk(clips):
        assert float(jerk[clips.is_shaky].min()) > 2 * float(jerk[~clips.is_shaky].max())


def test_a_finer_raster_shows_the_same_picture(specs: list, clips: WorldClips) -> None:
    fine = render_clips(specs[:2], height=96, width=128, num_frames=17, supersample=1)
    pooled = fine.frames.unflatten(2, (48, 2)).unflatten(4, (64, 2)).mean((3, 5))
    torch.testing.assert_close(pooled, clips.frames[:2], atol=1e-5, rtol=0)


def test_more_frames_show_the_same_motion() -> None:
    steady = [spec for i in range(20) if not (spec := sample_scene("train", i)).is_shaky][:2]
    short, long = render_clips(steady, num_frames=5), render_clips(steady, num_frames=9)
    assert equal(short, part_of(long, slice(None), slice(None, None, 2)))


def test_the_first_camera_is_the_world(clips: WorldClips) -> None:
    assert torch.equal(clips.geometry.camera_to_world[:, 0], torch.eye(4).expand(6, 4, 4))


def test_objects_have_the_colours_of_their_captions() -> None:
    """A plain red thing is mostly red, wherever the light comes from."""
    channel = {"red": 0, "green": 1, "blue": 2}
    checked = 0
    for index in range(60):
        spec = sample_scene("train", index)
        for k, thing in enumerate(spec.objects):
            colour = next((c for c in channel if f"a {c} {thing.shape}" in spec.caption), None)
            if thing.texture.pattern != "plain" or colour is None:
                continue
            same = [o for o in spec.objects if o.shape == thing.shape and o.texture.pattern == "plain"]
            if len(same) > 1:
                continue
            clips = render_clips([spec], num_frames=1)
            mean = clips.frames[0, 0][clips.object_mask[0, 0] == k + 1].mean(0)
            assert int(mean.argmax()) == channel[colour], spec.caption
            checked += 1
    assert checked >= 3


def test_a_planted_fault_goes_through_the_motion(specs: list) -> None:
    """Rendering an altered motion changes frames and geometry of the altered view only."""
    motion = scene_motion(specs[:1], 3)
    moved = motion.camera_to_scene.clone()
    moved[:, 2, :3, 3] += 0.1
    packed = pack_scenes(specs[:1])
    clean = render_packed(packed, motion, 48, 64, 2)
    faulty = render_packed(packed, SceneMotion(moved, motion.object_to_scene), 48, 64, 2)
    assert torch.equal(clean[0][:, :2], faulty[0][:, :2])
    assert not torch.equal(clean[0][:, 2], faulty[0][:, 2])
    assert not torch.equal(clean[2].depth_z[:, 2], faulty[2].depth_z[:, 2])


def test_a_scene_without_objects_renders(specs: list) -> None:
    empty = dataclasses.replace(specs[0], objects=())
    clips = render_clips([empty], num_frames=3)
    assert int(clips.object_mask.max()) == 0
    assert bool(clips.geometry.static_mask.all())
    assert float(clips.geometry.scene_flow_from_ref.abs().max()) == 0


def test_streams_are_deterministic_and_resume_anywhere(clips: WorldClips) -> None:
    first, second = itertools.islice(clip_stream("train", 0, 2), 2)
    assert equal(first, part_of(clips, slice(0, 2)))
    assert equal(second, part_of(clips, slice(2, 4)))
    keys = next(clip_stream("train", 2, 2, views="keys"))
    assert equal(keys, part_of(clips, slice(2, 4), slice(None, None, 4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "some"}, "views is 'some'; expected 'all' or 'keys'"),
        ({"height": 0}, "height is 0; expected a positive"),
        ({"supersample": -1}, "supersample is -1; expected a positive"),
    ],
)
def test_bad_options_are_named(specs: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_clips(specs[:1], **options)


def test_nothing_to_render_is_an_error() -> None:
    with pytest.raises(ValueError, match="specs is empty"):
        render_clips([])
    with pytest.raises(ValueError, match="batch_size is 0; expected 1"):
        next(clip_stream("train", 0, 0))
