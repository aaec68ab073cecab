"""The classical metrics of `vggrpo evaluate` on clips and matches whose answer is known."""

from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from vggrpo.evaluation import dis_flow, flow_jerk, flow_magnitude
from vggrpo.evaluation.videos import (
    Clip,
    DynamicsMetric,
    EpipolarMetric,
    FeatureConsistencyMetric,
    Measured,
    Video,
)
from vggrpo.evaluation.videos.base import Frames
from vggrpo.evaluation.videos.decoding import decode_clip
from vggrpo.evaluation.videos.dynamics import ssim
from vggrpo.evaluation.videos.epipolar import eight_point_error, magsac_error
from vggrpo.geometry import fundamental_matrix, sampson_distance, se3_from_rt, so3_exp
from vggrpo.io import read_video, write_video

HEIGHT, WIDTH = 120, 160


@pytest.fixture(scope="module")
def texture() -> Frames:
    """A picture with structure of every size, larger than any clip's path."""
    rng = np.random.default_rng(0)
    layers = [rng.random((600 // size, 600 // size, 3)).astype(np.float32) for size in (3, 8, 24)]
    scaled = [cv2.resize(layer, (600, 600), interpolation=cv2.INTER_CUBIC) for layer in layers]
    mixed = 0.35 * scaled[0] + 0.35 * scaled[1] + 0.3 * scaled[2]
    return (255 * np.clip(mixed, 0, 1)).round().astype(np.uint8)


def panned(texture: Frames, step: float, num_frames: int = 17) -> Frames:
    """A window that moves by `step` pixels a frame to the right and half of it down."""
    frames = []
    for number in range(num_frames):
        window = np.array([[1, 0, 150 + step * number], [0, 1, 150 + step / 2 * number]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frames.append(cv2.warpAffine(texture, window, (WIDTH, HEIGHT), flags=flags))
    return np.stack(frames)


def measured(metric: EpipolarMetric | DynamicsMetric | FeatureConsistencyMetric, frames: Frames) -> Measured:
    return metric.compute(Video(frames, 8.0), Clip("clip.mp4", None))  # type: ignore[arg-type]


def two_views(count: int = 400, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Matches [N, 2] of random points in two cameras, with Gaussian noise in pixels; and the exact F."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 1
    points[:, 2] += 4
    camera = se3_from_rt(
        so3_exp(torch.tensor([0.02, -0.1, 0.03], dtype=torch.float64)),
        torch.tensor([0.6, 0.1, 0.2], dtype=torch.float64),
    )
    K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)
    inside = (points - camera[:3, 3]) @ camera[:3, :3]
    a, b = (homogeneous @ K.T for homogeneous in (points, inside))
    pixels = [view[:, :2] / view[:, 2:] for view in (a, b)]
    noisy = [
        (view + noise * torch.randn(view.shape, generator=generator, dtype=torch.float64)).float().numpy()
        for view in pixels
    ]
    identity = torch.eye(4, dtype=torch.float64)
    return noisy[0], noisy[1], fundamental_matrix(identity, K, camera, K)


def straightforward_eight_point(a: np.ndarray, b: np.ndarray) -> torch.Tensor:
    """F of all matches by the normalised eight-point algorithm in float64, as in the textbook."""

    def normalised(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centre = points.mean(0)
        scale = np.sqrt(2) / np.linalg.norm(points - centre, axis=1).mean()
        transform = np.array([[scale, 0, -scale * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])
        return (points - centre) * scale, transform

    (p, to_p), (q, to_q) = normalised(a.astype(np.float64)), normalised(b.astype(np.float64))
    ones = np.ones(len(p))
    rows = np.stack([*(q[:, 0] * p.T), q[:, 0], *(q[:, 1] * p.T), q[:, 1], *p.T, ones], axis=1)
    solution = np.linalg.svd(rows)[2][-1].reshape(3, 3)
    u, s, v = np.linalg.svd(solution)
    return torch.from_numpy(to_q.T @ (u @ np.diag([s[0], s[1], 0]) @ v) @ to_p)


def test_the_published_error_is_the_textbook_algorithm_on_all_matches() -> None:
    a, b, _ = two_views()
    a[:8] += np.float32(60)  # 2 % of wrong matches
    found = eight_point_error(a, b, inlier_pixels=5.0)
    distance = sampson_distance(
        torch.from_numpy(a).double(), torch.from_numpy(b).double(), straightforward_eight_point(a, b)
    )
    assert found.error == pytest.approx(float((distance**2 + 1e-8).sqrt().mean()), rel=1e-3)
    assert found.inlier_rate == pytest.approx(float((distance < 5).double().mean()), abs=1e-9)
    assert found.displacement == pytest.approx(float(np.median(np.linalg.norm(a - b, axis=1))))


def test_the_published_error_of_a_file_is_that_of_its_own_steps(texture: Frames, tmp_path: Path) -> None:
    """Decoded by FFmpeg's default colours, every 15th frame, SIFT, ratio test, textbook F."""
    path = tmp_path / "clip.mp4"
    write_video(path, panned(texture, 1.3, 31), 8.0, crf=30)
    found = measured(EpipolarMetric(), decode_clip(path)[0].frames)
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    exact, _ = read_video(path)
    assert not np.array_equal(exact, frames)  # the conversion matters
    sift, errors = cv2.SIFT.create(), []
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[::15]]
    described = [sift.detectAndCompute(image, None) for image in grey]
    for (points_a, a), (points_b, b) in pairwise(described):
        distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
        best, second = np.partition(distance, 1, axis=1)[:, :2].T
        rows = np.flatnonzero(best < 0.75 * second)
        p = np.array([points_a[i].pt for i in rows], np.float32)
        q = np.array([points_b[j].pt for j in distance[rows].argmin(1)], np.float32)
        d = sampson_distance(
            *(torch.from_numpy(x).double() for x in (p, q)), straightforward_eight_point(p, q)
        )
        errors.append(float((d**2 + 1e-8).sqrt().mean()))
    assert found.values["epipolar_pairs"] == len(errors) == 2
    assert found.values["epipolar_error"] == pytest.approx(np.mean(errors), rel=0.01)


def test_wrong_matches_dominate_the_published_error_but_not_the_robust_one() -> None:
    a, b, exact = two_views()
    truth = sampson_distance(torch.from_numpy(a).double(), torch.from_numpy(b).double(), exact).median()
    clean = eight_point_error(a, b, 5.0), magsac_error(a, b, 1.0)
    assert clean[1].error == pytest.approx(float(truth), rel=0.1)
    a[:40] += np.random.default_rng(1).uniform(-60, 60, (40, 2)).astype(np.float32)
    dirty = eight_point_error(a, b, 5.0), magsac_error(a, b, 1.0)
    assert dirty[0].error > 5 * clean[0].error
    assert dirty[1].error < 1.3 * clean[1].error
    assert dirty[1].inlier_rate == pytest.approx(0.9 * clean[1].inlier_rate, abs=0.03)


def test_points_of_a_plane_at_rest_in_one_place_have_no_fundamental_matrix() -> None:
    a = np.zeros((30, 2), np.float32)
    for found in (eight_point_error(a, a, 5.0), magsac_error(a, a, 1.0)):
        assert np.isnan([found.error, found.inlier_rate]).all()
        assert found.displacement == 0


def test_epipolar_errors_see_a_world_that_does_not_hold_together(texture: Frames) -> None:
    """A camera goes sideways past three walls, one above the other, the nearer the faster. Two walls alone
    would have a fundamental matrix however they move."""
    bands = []
    for speed in (1, 3, 2):
        picture = texture[100 * speed : 100 * speed + 60, : WIDTH + 20]
        bands.append([picture[:, speed * number : speed * number + WIDTH] for number in range(7)])
    whole = np.stack([np.concatenate(walls) for walls in zip(*bands, strict=True)])
    torn = whole.copy()
    torn[1::2, 60:120] = np.roll(whole[1::2, 60:120], 8, axis=1)  # the wall in the middle jumps up and down
    metric = EpipolarMetric(stride=3)
    rigid, broken = measured(metric, whole), measured(metric, torn)
    assert rigid.values["epipolar_pairs"] == 2
    assert rigid.values["epipolar_robust_pairs"] == 6
    assert rigid.values["epipolar_robust_error"] < 0.1
    assert rigid.values["epipolar_robust_inliers"] > 0.95
    assert broken.values["epipolar_robust_error"] > 4 * rigid.values["epipolar_robust_error"]
    assert measured(metric, whole) == rigid  # MAGSAC++ draws random samples, but the same every time


def test_a_static_clip_is_called_so_and_has_no_error(texture: Frames) -> None:
    found = measured(EpipolarMetric(), np.repeat(panned(texture, 0, 1), 31, axis=0))
    assert np.isnan([found.values["epipolar_error"], found.values["epipolar_robust_error"]]).all()
    assert found.values["epipolar_pairs"] == found.values["epipolar_robust_pairs"] == 0
    assert [note.startswith("static: matched points move by 0 px") for note in found.notes] == [True, True]


def test_what_keeps_an_epipolar_error_from_being_measured_is_said(texture: Frames) -> None:
    short = measured(EpipolarMetric(), panned(texture, 2.0, 15))
    assert short.values["epipolar_robust_pairs"] == 14
    assert short.notes == ("too short for the published error: 15 frames, pairs are 15 apart",)
    blank = measured(EpipolarMetric(), np.full((17, HEIGHT, WIDTH, 3), 80, np.uint8))
    assert set(blank.notes) == {
        f"no pair of frames has 20 matched points for the {kind} error" for kind in ("published", "robust")
    }


def test_flow_metrics_are_those_of_the_held_out_evaluation(texture: Frames) -> None:
    frames = panned(texture, 1.5, 9)
    frames[4] = panned(texture, 1.9, 9)[4]
    found = measured(DynamicsMetric(), frames)
    tensor = torch.from_numpy(frames)[None].float() / 255
    flow = dis_flow(tensor)
    assert found.values["flow_magnitude"] == pytest.approx(float(flow_magnitude(tensor, flow)), rel=1e-5)
    assert found.values["flow_jerk"] == pytest.approx(float(flow_jerk(tensor, flow=flow)), rel=0.02)
    assert found.values["flow_magnitude"] == pytest.approx(1.5 * np.sqrt(1.25), rel=0.1)


def test_ssim_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 40, 50), dtype=np.uint8)

    def window(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    x, y = a.astype(np.float64), b.astype(np.float64)
    mx, my = window(x), window(y)
    vx, vy, cov = window(x * x) - mx * mx, window(y * y) - my * my, window(x * y) - mx * my
    c1, c2 = 6.5025, 58.5225
    expected = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)
    assert ssim(a, a) == pytest.approx(1.0)
    flat = ssim(np.full((20, 20), 50, np.uint8), np.full((20, 20), 200, np.uint8))
    assert flat == pytest.approx((2 * 50 * 200 + c1) / (50**2 + 200**2 + c1))


def test_change_from_the_first_frame_grows_with_the_path_and_is_0_at_rest(texture: Frames) -> None:
    still, slow, fast = (
        measured(DynamicsMetric(), panned(texture, step, 9)).values["change_from_first"]
        for step in (0.0, 0.2, 2.0)
    )
    assert still == pytest.approx(0, abs=1e-9)
    assert 0.02 < slow < fast < 1.05


def test_three_frames_have_a_flow_but_no_jerk(texture: Frames) -> None:
    found = measured(DynamicsMetric(), panned(texture, 1.0, 3))
    assert np.isfinite(found.values["flow_magnitude"])
    assert np.isnan(found.values["flow_jerk"])
    assert found.notes == ("too short for the flow's jerk: fewer than 4 frames",)


def test_features_stay_where_a_surface_moves_and_change_where_it_boils(texture: Frames) -> None:
    metric = FeatureConsistencyMetric()
    moving = panned(texture, 2.0, 6)
    rng = np.random.default_rng(0)
    boiling = np.stack(
        [
            cv2.addWeighted(frame, 0.6, cv2.GaussianBlur(noise, (0, 0), 2.0), 0.4, 0)
            for frame, noise in zip(moving, rng.integers(0, 256, moving.shape, dtype=np.uint8), strict=True)
        ]
    )
    boiling = np.clip(128 + (boiling.astype(np.float32) - boiling.mean()) * 2, 0, 255).astype(np.uint8)
    kept, lost = measured(metric, moving).values, measured(metric, boiling).values
    assert kept["feature_consistency"] > 0.98
    assert kept["feature_coverage"] > 0.4
    assert 1 - lost["feature_consistency"] > 4 * (1 - kept["feature_consistency"])
    shuffled = measured(metric, moving[[0, 3, 1, 5, 2, 4]]).values
    assert shuffled["feature_consistency"] > 0.9  # the flow follows a surface that jumps


def test_unrelated_frames_leave_little_to_compare(texture: Frames) -> None:
    rng = np.random.default_rng(0)
    frames = np.stack(
        [np.roll(texture, rng.integers(100, 500, 2), axis=(0, 1))[:HEIGHT, :WIDTH] for _ in range(4)]
    )
    found = measured(FeatureConsistencyMetric(), frames).values
    assert found["feature_coverage"] < 0.3


def test_without_texture_there_is_nothing_to_compare() -> None:
    found = measured(FeatureConsistencyMetric(), np.full((3, 64, 64, 3), 99, np.uint8))
    assert np.isnan(found.values["feature_consistency"])
    assert found.values["feature_coverage"] == 0
    assert found.notes == ("no textured point can be followed to the next frame",)


def test_lighting_hardly_matters_to_the_features(texture: Frames) -> None:
    frames = panned(texture, 1.0, 4)
    darker = (frames * np.array([1.0, 0.85, 1.0, 0.9])[:, None, None, None]).astype(np.uint8)
    found = measured(FeatureConsistencyMetric(), darker).values
    assert found["feature_consistency"] > 0.98


@pytest.mark.parametrize(
    "metric", [DynamicsMetric(), FeatureConsistencyMetric()], ids=lambda metric: metric.name
)
def test_tiny_pictures_are_refused_in_words(metric: DynamicsMetric) -> None:
    found = measured(metric, np.zeros((5, 12, 40, 3), np.uint8))
    assert all(np.isnan(value) for value in found.values.values())
    assert found.values.keys() == set(metric.metrics)
    assert "40x12 pixels are too few" in found.notes[0]


def test_a_changed_setting_changes_the_fingerprint() -> None:
    assert EpipolarMetric().fingerprint == EpipolarMetric().fingerprint
    assert EpipolarMetric().fingerprint != EpipolarMetric(stride=10).fingerprint
    assert FeatureConsistencyMetric().fingerprint != FeatureConsistencyMetric(side=128).fingerprint
