"""Errors against exact geometry: closed forms, scipy and the published protocols as references."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from vggrpo.evaluation.geometry_metrics import (
    GEOMETRY_METRICS,
    align_similarity,
    aligned_trajectory_error,
    depth_errors,
    depth_scale,
    geometry_metrics,
    on_raster,
    pair_errors,
    pose_auc,
    pose_errors,
)
from vggrpo.geometry import SceneGeometry, project, se3_from_rt, so3_exp, unproject
from vggrpo.world import render_clips, sample_scene

double = torch.float64


def cameras(rotation_vectors: list[list[float]], centres: list[list[float]]) -> torch.Tensor:
    """[1, T, 4, 4]."""
    rotations = so3_exp(torch.tensor(rotation_vectors, dtype=double))
    return se3_from_rt(rotations, torch.tensor(centres, dtype=double))[None]


def random_cameras(batch: int, views: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(batch, views, 3, generator=generator, dtype=double)
    return se3_from_rt(so3_exp(vectors), torch.randn(batch, views, 3, generator=generator, dtype=double))


def similarity(seed: int) -> tuple[float, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rotation = so3_exp(torch.randn(3, generator=generator, dtype=double))
    return 2.5, rotation, torch.randn(3, generator=generator, dtype=double)


@pytest.fixture(scope="module")
def truth() -> SceneGeometry:
    """Two clips of the world around which the camera goes, the second with something that moves."""
    scenes = [sample_scene("test", index) for index in range(60)]
    orbits = [scene for scene in scenes if scene.camera.family == "orbit"]
    chosen = [next(s for s in orbits if s.is_dynamic is moving) for moving in (False, True)]
    clips = render_clips(chosen, views="keys", height=24, width=32, supersample=1, dtype=double)
    return clips.geometry


def in_another_world(
    scene: SceneGeometry, scale: float, rotation: torch.Tensor, t: torch.Tensor
) -> SceneGeometry:
    """The same scene as a model with another world and scale would see it."""
    world = se3_from_rt(rotation, t)
    moved = scene.camera_to_world.clone()
    moved[..., :3, 3] *= scale
    assert scene.scene_flow_from_ref is not None
    return replace(
        scene,
        camera_to_world=world @ moved,
        depth_z=scale * scene.depth_z,
        scene_flow_from_ref=scale * scene.scene_flow_from_ref @ rotation.mT,
    )


def test_a_pair_has_the_errors_that_were_put_in():
    true = cameras([[0, 0, 0], [0, 0.3, 0]], [[0, 0, 0], [1, 0, 0]])
    turned = cameras([[0, 0, 0], [0, 0.3 + np.deg2rad(7), 0]], [[0, 0, 0], [1, 0, 0]])
    rotation, direction = pair_errors(turned, true, torch.tensor([1e-3], dtype=double))
    assert rotation.item() == pytest.approx(7)
    assert direction.item() == pytest.approx(0, abs=1e-6)
    aside = [float(np.cos(np.deg2rad(20))), 0.0, float(np.sin(np.deg2rad(20)))]
    for factor in (1.0, 5.0, -1.0):  # neither length nor sign of a direction count
        moved = cameras([[0, 0, 0], [0, 0.3, 0]], [[0, 0, 0], [factor * x for x in aside]])
        rotation, direction = pair_errors(moved, true, torch.tensor([1e-3], dtype=double))
        assert rotation.item() == pytest.approx(0, abs=1e-6)
        assert direction.item() == pytest.approx(20)


def test_directions_where_there_is_none():
    still = cameras([[0, 0, 0], [0, 0.1, 0]], [[0, 0, 0], [0, 0, 0]])
    moving = cameras([[0, 0, 0], [0, 0.1, 0]], [[0, 0, 0], [0, 0, 1]])
    floor = torch.tensor([1e-3], dtype=double)
    rotation, direction = pair_errors(moving, still, floor)
    assert direction.isnan().all()
    assert pose_errors(rotation, direction).item() == pytest.approx(0, abs=1e-6)
    assert pair_errors(still, moving, floor)[1].item() == pytest.approx(90)


def test_relative_errors_follow_the_matrices_of_all_pairs():
    """Against scipy's rotations and plain loops."""
    predicted, true = random_cameras(2, 5, seed=1), random_cameras(2, 5, seed=2)
    rotation, direction = pair_errors(predicted, true, torch.zeros(2, dtype=double))
    for clip in range(2):
        place = 0
        for i in range(5):
            for j in range(i + 1, 5):
                relative, wanted = (
                    np.linalg.inv(c[clip, i].numpy()) @ c[clip, j].numpy() for c in (predicted, true)
                )
                angle = Rotation.from_matrix(relative[:3, :3].T @ wanted[:3, :3]).magnitude()
                t, true_t = relative[:3, 3], wanted[:3, 3]
                cosine = abs(t @ true_t) / np.linalg.norm(t) / np.linalg.norm(true_t)
                assert rotation[clip, place].item() == pytest.approx(np.rad2deg(angle))
                assert direction[clip, place].item() == pytest.approx(np.rad2deg(np.arccos(cosine)))
                place += 1
        assert place == rotation.shape[1]


def test_auc_is_the_mean_accuracy_at_whole_degrees():
    """The published evaluations' form: a normalised histogram of one-degree bins, summed and averaged."""
    errors = 40 * torch.rand(3, 500, dtype=double, generator=torch.Generator().manual_seed(0))
    for threshold in (5, 10, 30):
        for clip in range(3):
            histogram, _ = np.histogram(errors[clip].numpy(), bins=np.arange(threshold + 1))
            expected = np.mean(np.cumsum(histogram / errors.shape[1]))
            assert pose_auc(errors, threshold)[clip].item() == pytest.approx(expected)
    known = torch.tensor([[0.2, 2.5, 90.0]], dtype=double)
    assert pose_auc(known, 5).item() == pytest.approx((5 + 3 + 0) / 5 / 3)


def test_umeyama_finds_the_similarity():
    scale, rotation, translation = similarity(3)
    source = torch.randn(2, 7, 3, dtype=double, generator=torch.Generator().manual_seed(4))
    target = scale * source @ rotation.mT + translation
    found = align_similarity(source, target)
    torch.testing.assert_close(found[0], torch.full((2,), scale, dtype=double))
    torch.testing.assert_close(found[1], rotation.expand(2, 3, 3))
    torch.testing.assert_close(found[2], translation.expand(2, 3))


@pytest.mark.parametrize("mirrored", [False, True])
def test_umeyama_is_a_least_squares_solution(mirrored):
    """A search over all similarities does not find a better one, for mirrored points either."""
    generator = torch.Generator().manual_seed(5)
    source = torch.randn(1, 6, 3, dtype=double, generator=generator)
    target = source + 0.5 * torch.randn(1, 6, 3, dtype=double, generator=generator)
    if mirrored:
        target = target * torch.tensor([1.0, 1.0, -1.0], dtype=double)
    scale, rotation, translation = align_similarity(source, target)
    assert torch.linalg.det(rotation).item() == pytest.approx(1)
    x, y = source[0].numpy(), target[0].numpy()

    def cost(parameters: np.ndarray) -> float:
        turned = Rotation.from_rotvec(parameters[:3]).apply(x)
        return float(((np.exp(parameters[6]) * turned + parameters[3:6] - y) ** 2).sum())

    found = ((scale * source @ rotation.mT + translation - target) ** 2).sum().item()
    starts = np.random.default_rng(0).normal(size=(12, 7))
    assert found == pytest.approx(min(minimize(cost, start).fun for start in starts), rel=1e-5)


def test_trajectory_error_sees_shape_alone():
    true = random_cameras(1, 6, seed=6)
    scale, rotation, translation = similarity(7)
    moved = se3_from_rt(rotation, translation) @ true
    moved[..., :3, 3] *= scale
    assert aligned_trajectory_error(moved, true).item() == pytest.approx(0, abs=1e-9)
    # Points at +-1 on a line against a predicted camera that stands still: their spread remains.
    line = cameras([[0, 0, 0]] * 4, [[1, 0, 0], [-1, 0, 0], [1, 0, 0], [-1, 0, 0]])
    still = cameras([[0, 0, 0]] * 4, [[5, 5, 5]] * 4)
    assert aligned_trajectory_error(still, line).item() == pytest.approx(1)
    assert aligned_trajectory_error(line, still).item() == pytest.approx(0, abs=1e-9)
    assert aligned_trajectory_error(true[:, :2], true[:, :2]).isnan().all()


def test_depth_errors_of_known_depths():
    true = torch.tensor([1.0, 2.0, 4.0, 0.0, 8.0], dtype=double).reshape(1, 1, 1, 5)
    predicted = torch.tensor([2.0, 4.0, 8.0, 1.0, 24.0], dtype=double).reshape(1, 1, 1, 5)
    scale = depth_scale(predicted, true)
    assert scale.item() == pytest.approx(0.5)
    errors = depth_errors(predicted, true, scale)
    assert errors["aligned_depth_abs_rel"].item() == pytest.approx((0 + 0 + 0 + 0.5) / 4)
    assert errors["aligned_depth_delta"].item() == pytest.approx(3 / 4)
    behind = depth_errors(-predicted, true, torch.ones(1, dtype=double))
    assert behind["aligned_depth_delta"].item() == 0
    assert behind["aligned_depth_abs_rel"].item() > 1
    nowhere = depth_errors(-predicted, true, depth_scale(-predicted, true))
    assert all(value.isnan().all() for value in nowhere.values())


def test_the_truth_has_no_error_in_any_world(truth):
    scale, rotation, translation = similarity(8)
    values = geometry_metrics(in_another_world(truth, scale, rotation, translation), truth)
    assert set(values) == set(GEOMETRY_METRICS)
    for threshold in (5, 10, 30):
        torch.testing.assert_close(values[f"pose_auc_{threshold}"], torch.ones(2, dtype=double))
    torch.testing.assert_close(values["aligned_depth_delta"], torch.ones(2, dtype=double))
    for name in ("pair_rotation_deg", "pair_direction_deg", "ate", "aligned_depth_abs_rel"):
        assert values[name].abs().max() < 1e-5, name
    assert values["moving_flow_epe"][0].isnan()
    assert values["moving_flow_epe"][1] < 1e-9
    assert values["moving_flow_length"][1] > 0.01


def test_a_camera_that_only_turns_is_judged_by_its_rotation():
    pan = next(s for s in (sample_scene("test", i) for i in range(60)) if s.camera.family == "pan")
    true = render_clips([pan], views="keys", height=24, width=32, supersample=1, dtype=double).geometry
    turned = replace(true, camera_to_world=true.camera_to_world.clone())
    turned.camera_to_world[:, -1, :3, :3] @= so3_exp(torch.tensor([0, np.deg2rad(3.5), 0], dtype=double))
    values = geometry_metrics(turned, true)
    assert values["pair_direction_deg"].isnan().all()
    views = true.num_views
    of_last = (views - 1) / (views * (views - 1) / 2)
    assert values["pose_auc_5"].item() == pytest.approx(1 - of_last * 3 / 5)


def test_no_flow_has_the_error_of_its_true_length(truth):
    assert truth.scene_flow_from_ref is not None
    blind = replace(truth, scene_flow_from_ref=torch.zeros_like(truth.scene_flow_from_ref))
    values = geometry_metrics(blind, truth)
    assert values["moving_flow_epe"][1] == values["moving_flow_length"][1]
    length = truth.scene_flow_from_ref[1].norm(dim=-1)
    unit = truth.depth_z[1].flatten().median()
    assert values["moving_flow_length"][1].item() == pytest.approx((length[length > 0].mean() / unit).item())
    assert "moving_flow_epe" not in geometry_metrics(replace(truth, scene_flow_from_ref=None), truth)


def test_a_prediction_that_is_not_finite_is_not_measured_and_does_not_spoil_others(truth):
    broken = replace(truth, depth_z=truth.depth_z.clone())
    broken.depth_z[0, 1, 2, 3] = torch.nan
    values, whole = geometry_metrics(broken, truth), geometry_metrics(truth, truth)
    for name in GEOMETRY_METRICS:
        assert values[name][0].isnan(), name
        torch.testing.assert_close(values[name][1], whole[name][1])
    broken.depth_z.fill_(torch.inf)
    assert all(value.isnan().all() for value in geometry_metrics(broken, truth).values())


def test_scenes_must_match(truth):
    with pytest.raises(ValueError, match=r"see on_raster"):
        geometry_metrics(on_raster(truth, 12, 16), truth)
    with pytest.raises(ValueError, match="at least two"):
        geometry_metrics(truth.select([0]), truth.select([0]))
    blank = replace(truth, depth_z=torch.zeros_like(truth.depth_z))
    with pytest.raises(ValueError, match=r"true scenes \[0, 1\] see no surface"):
        geometry_metrics(truth, blank)


def test_another_raster_keeps_the_geometry(truth):
    """Every chosen pixel's point still projects to within a pixel of its new place."""
    small = on_raster(truth, 16, 16)
    uv, z = project(small.world_points.flatten(2, 3), small.intrinsics, small.camera_to_world)
    torch.testing.assert_close(z.reshape(small.depth_z.shape), small.depth_z)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    offset = uv.reshape(*small.depth_z.shape, 2) - torch.stack([columns, rows], dim=-1)
    assert offset.abs().max() <= 0.5
    assert on_raster(truth, truth.height, truth.width) is truth
    double_size = on_raster(truth, 48, 64)
    assert set(double_size.depth_z.unique().tolist()) == set(truth.depth_z.unique().tolist())
    points = unproject(truth.depth_z, truth.intrinsics)
    again = unproject(double_size.depth_z, double_size.intrinsics)
    assert (again[:, :, ::2, ::2] - points).norm(dim=-1).max() < points.norm(dim=-1).max() / 10
