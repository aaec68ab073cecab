"""Planted faults: what differs from the clean clip, what does not, and what the faulty geometry is."""

from functools import cache

import pytest
import torch
from torch import Tensor

from vggrpo.geometry import transform_points
from vggrpo.world import FAULT_KINDS, Fault, SceneSpec, WorldClips, render_clips, sample_scene
from vggrpo.world.distortion import Distortion
from vggrpo.world.faults import plant_fault
from vggrpo.world.paths import scene_motion
from vggrpo.world.waves import wave, wave_slope

COUNT, FRAMES = 6, 17
BENDING = ("warped", "wobbling")


@cache
def specs() -> tuple[SceneSpec, ...]:
    """Rooms and open ground."""
    scenes = tuple(sample_scene("test", index) for index in range(COUNT))
    assert len({scene.surroundings.is_room for scene in scenes}) == 2
    return scenes


@cache
def clips(kind: str, severity: float = 1.0) -> WorldClips:
    """Key frames, in float64; "clean" ones without a fault."""
    fault = None if kind == "clean" else Fault(kind, severity)
    return render_clips(specs(), views="keys", supersample=1, dtype=torch.float64, fault=fault)


def change(kind: str, severity: float = 1.0) -> Tensor:
    """Mean absolute difference of colours from the clean clip, [B, T]."""
    return (clips(kind, severity).frames - clips("clean").frames).abs().mean((2, 3, 4))


def relative_depth_change(kind: str) -> Tensor:
    """Mean relative difference of depths from the clean clip, [B, T]."""
    clean = clips("clean").geometry.depth_z
    return ((clips(kind).geometry.depth_z - clean).abs() / clean).mean((2, 3))


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_a_faulty_clip_begins_as_the_clean_one_and_goes_astray(kind: str) -> None:
    assert torch.equal(clips(kind).frames[:, 0], clips("clean").frames[:, 0])
    assert change(kind)[:, 1:].min() > 0.002
    assert change(kind)[:, -1].min() > 0.01


def test_warped_and_sliding_clips_drift_and_wobbling_ones_go_back_and_forth() -> None:
    assert (change("warped")[:, 1:].mean(0).diff() > 0).all()
    assert (planted("sliding").slides.norm(dim=-1).diff(dim=1) > 0).all()
    bend = planted("wobbling").amplitudes
    assert (bend.diff(dim=1).abs().mean() > 0.5 * bend.abs().mean()).all()
    slow = planted("warped").amplitudes
    assert (slow.diff(dim=1).abs().mean() < 0.15 * slow.abs().mean()).all()


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_cameras_flow_and_mask_are_those_that_the_clip_pretends(kind: str) -> None:
    clean, faulty = clips("clean").geometry, clips(kind).geometry
    assert torch.equal(faulty.camera_to_world, clean.camera_to_world)
    assert torch.equal(faulty.scene_flow_from_ref, clean.scene_flow_from_ref)
    still = ~clips(kind).is_dynamic
    assert faulty.static_mask[still].all()
    assert not faulty.static_mask[~still].all()


def test_only_bends_change_the_geometry() -> None:
    clean, sliding = clips("clean").geometry, clips("sliding").geometry
    assert torch.equal(sliding.depth_z, clean.depth_z)
    assert torch.equal(clips("sliding").object_mask, clips("clean").object_mask)
    for kind in BENDING:
        assert (relative_depth_change(kind)[:, 0] == 0).all()
        assert relative_depth_change(kind)[:, -1].min() > 0.02


@pytest.mark.parametrize("kind", BENDING)
def test_bent_surroundings_are_the_straight_ones_displaced(kind: str) -> None:
    """Undoing the displacement of what is seen, by itself, leads back to walls, ground and sky."""
    distortion = planted(kind).views(slice(None, None, 4))
    geometry, motion = clips(kind).geometry, scene_motion(specs(), FRAMES)
    seen = transform_points(motion.camera_to_scene[:, :1, None, None], geometry.world_points)
    straight = seen.clone()
    for _ in range(60):
        straight = seen - torch.stack(distortion.displacement(straight.unbind(-1)), dim=-1)
    for row, spec in enumerate(specs()):
        behind = clips(kind).object_mask[row] == 0
        error = distance_to_surroundings(spec, straight[row][behind]).abs()
        assert error.quantile(0.9) < 0.03
        drawn_straight = distance_to_surroundings(spec, seen[row, 1:][behind[1:]]).abs()
        assert drawn_straight.quantile(0.9) > 0.05


def distance_to_surroundings(spec: SceneSpec, points: Tensor) -> Tensor:
    place = spec.surroundings
    if place.is_room:
        lower, upper = points.new_tensor(place.lower), points.new_tensor(place.upper)
        return torch.minimum(points - lower, upper - points).amin(-1)
    return torch.minimum(-points[..., 1], place.dome_radius - points.norm(dim=-1))


@pytest.mark.parametrize("kind", BENDING)
def test_objects_keep_their_shape_and_stay_on_the_bent_floor(kind: str) -> None:
    distortion, motion = planted(kind), scene_motion(specs(), FRAMES)
    rotation = distortion.carried[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand_as(rotation))
    feet = motion.object_to_scene[..., :3, 3] * torch.tensor([1.0, 0.0, 1.0])
    coordinates = feet.unbind(-1)
    shift = torch.stack(distortion.displacement([c[..., None] for c in coordinates]), dim=-1)[..., 0, :]
    torch.testing.assert_close(
        transform_points(distortion.carried, feet[..., None, :])[..., 0, :], feet + shift
    )


def test_objects_turn_with_the_bend() -> None:
    """The rotation is half the curl of the displacement, here by differences of it around the foot."""
    distortion, motion = planted("warped"), scene_motion(specs(), FRAMES)
    feet = (motion.object_to_scene[..., :3, 3] * torch.tensor([1.0, 0.0, 1.0]))[:, -1:, 0]
    late = distortion.views(slice(-1, None))

    def displaced(points: Tensor) -> Tensor:
        return torch.stack(late.displacement([c[..., None, None] for c in points.unbind(-1)]), -1)[
            ..., 0, 0, :
        ]

    step, columns = 1e-4, []
    for axis in range(3):
        offset = torch.zeros(3, dtype=torch.float64)
        offset[axis] = step
        columns.append((displaced(feet + offset) - displaced(feet - offset)) / (2 * step))
    jacobian = torch.stack(columns, dim=-1)[:, 0]
    expected = torch.linalg.matrix_exp(0.5 * (jacobian - jacobian.mT))
    torch.testing.assert_close(late.carried[:, 0, 0, :3, :3], expected, atol=1e-3, rtol=0)


def test_severity_scales_the_fault() -> None:
    for kind in FAULT_KINDS:
        weak, strong = planted(kind, 0.5), planted(kind, 1.0)
        torch.testing.assert_close(2 * weak.amplitudes, strong.amplitudes)
        torch.testing.assert_close(2 * weak.slides, strong.slides)
        torch.testing.assert_close(2 * weak.object_slides, strong.object_slides)
    assert (change("warped", 0.25) < change("warped"))[:, 1:].all()


def test_textures_slide_along_their_surfaces() -> None:
    slides = planted("sliding").slides
    across = (1, 0, 0, 2, 2, 1)
    assert (slides[:, :, range(6), across] == 0).all()
    assert slides[:, -1].norm(dim=-1).min() > 1
    assert (slides[:, 0] == 0).all()
    point = torch.tensor([[0.3, -0.2, 0.5]]).double()
    normal = torch.nn.functional.normalize(point, dim=-1)
    distortion = planted("sliding").chunk(slice(0, 1)).views(slice(-1, None))
    read = torch.stack(
        distortion.slide_on_objects(torch.tensor([0]), point.unbind(-1), normal.unbind(-1)), dim=-1
    )
    slide = distortion.object_slides[0, 0, 0]
    torch.testing.assert_close(point - read, slide - (slide @ normal[0]) * normal)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_a_faulty_clip_is_the_same_alone_and_among_others(kind: str) -> None:
    alone = render_clips(specs()[2:3], views="keys", supersample=1, dtype=torch.float64, fault=Fault(kind))
    assert torch.equal(alone.frames, clips(kind).frames[2:3])
    assert torch.equal(alone.geometry.depth_z, clips(kind).geometry.depth_z[2:3])


def test_scenes_and_kinds_have_faults_of_their_own() -> None:
    vectors = torch.cat([planted(kind).wave_vectors.flatten(1) for kind in FAULT_KINDS])
    assert len(torch.unique(vectors, dim=0)) == len(FAULT_KINDS) * COUNT


def test_extreme_bends_leave_everything_ahead_of_the_camera() -> None:
    for kind in BENDING:
        geometry = clips(kind, 6.0).geometry
        assert geometry.depth_z.isfinite().all()
        assert geometry.depth_z.min() > 0


def test_slope_is_the_derivative_of_the_wave() -> None:
    phase = torch.linspace(-1.3, 1.3, 101, dtype=torch.float64)
    numeric = (wave(phase + 1e-6) - wave(phase - 1e-6)) / 2e-6
    torch.testing.assert_close(wave_slope(phase), numeric, atol=1e-4, rtol=0)


def test_wrong_faults_are_named() -> None:
    with pytest.raises(ValueError, match="kind is 'melting'; expected one of warped, wobbling, sliding"):
        Fault("melting")
    with pytest.raises(ValueError, match=r"severity is 0\.0; expected a positive number"):
        Fault("warped", 0.0)


def planted(kind: str, severity: float = 1.0) -> Distortion:
    motion = plant_fault(scene_motion(specs(), FRAMES), specs(), Fault(kind, severity))
    assert motion.distortion is not None
    return motion.distortion
