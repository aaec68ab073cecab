import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from vggrpo.evaluation import auc, dis_flow, dominant_motion, flow_drift, flow_jerk, flow_magnitude
from vggrpo.world import render_clips, sample_scene

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    """A smooth random picture, larger than any clip's path."""
    rng = np.random.default_rng(0)
    layers = [rng.random((400 // size, 400 // size, 3)).astype(np.float32) for size in (4, 10, 30)]
    scaled = [cv2.resize(layer, (400, 400), interpolation=cv2.INTER_CUBIC) for layer in layers]
    return np.clip(0.15 * scaled[0] + 0.3 * scaled[1] + 0.55 * scaled[2], 0, 1)


def clip_along(texture: np.ndarray, path: np.ndarray) -> Tensor:
    """A window that moves over the picture: [1, T, H, W, 3] from window corners [T, 2] (x, y), in pixels."""
    frames = []
    for x, y in path:
        window = np.array([[1, 0, 150 + x], [0, 1, 150 + y]], dtype=np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frames.append(cv2.warpAffine(texture, window, (WIDTH, HEIGHT), flags=flags))
    return torch.from_numpy(np.stack(frames))[None]


def straight(speed: tuple[float, float], frames: int = 9) -> np.ndarray:
    return np.arange(frames)[:, None] * np.array(speed)


@pytest.mark.parametrize("speed", [(1.5, 0.0), (0.0, -2.0), (-0.7, 1.1), (0.0, 0.0)])
def test_dominant_motion_is_the_shift_in_pixels(texture: np.ndarray, speed: tuple[float, float]) -> None:
    motion = dominant_motion(dis_flow(clip_along(texture, straight(speed))))
    assert motion.shape == (1, 8, 2)
    torch.testing.assert_close(motion, -torch.tensor(speed).expand(1, 8, 2), atol=0.08, rtol=0)


def test_magnitude_is_the_length_of_a_uniform_shift(texture: np.ndarray) -> None:
    assert float(flow_magnitude(clip_along(texture, straight((1.5, -2.0))))) == pytest.approx(2.5, abs=0.25)


def test_drift_is_the_magnitude_of_steady_motion_and_leaves_out_shake(texture: np.ndarray) -> None:
    path = straight((1.0, -0.5), 17)
    shaken = path + np.random.default_rng(3).normal(0, 1.5, path.shape)
    shaken[[0, -1]] = path[[0, -1]]  # the mean velocity is between the ends
    steady, shaky = clip_along(texture, path), clip_along(texture, shaken)
    assert float(flow_drift(steady)) == pytest.approx(float(flow_magnitude(steady)), rel=0.03)
    assert float(flow_drift(shaky)) == pytest.approx(float(flow_drift(steady)), rel=0.15)
    assert float(flow_magnitude(shaky)) > 1.8 * float(flow_magnitude(steady))


def test_world_cameras_that_stop_shaking_keep_their_drift_and_lose_magnitude() -> None:
    scenes = [scene for scene in (sample_scene("validation", i) for i in range(40)) if scene.is_shaky][:8]
    still = {"shake_rotation": 0.0, "shake_position": 0.0}
    steadied = [
        dataclasses.replace(scene, camera=dataclasses.replace(scene.camera, **still)) for scene in scenes
    ]
    before, after = (dis_flow(render_clips(specs).frames) for specs in (scenes, steadied))
    frames = torch.zeros(8, 17, HEIGHT, WIDTH, 3)
    assert float(flow_drift(frames, after).mean() / flow_drift(frames, before).mean()) > 0.85
    assert float(flow_magnitude(frames, after).mean() / flow_magnitude(frames, before).mean()) < 0.5


def test_dominant_motion_ignores_an_object_that_covers_less_than_half(texture: np.ndarray) -> None:
    clip = clip_along(texture, straight((1.0, 0.0)))
    clip[:, :, 10:34, 16:46] = torch.rand(1, 9, 24, 30, 3, generator=torch.Generator().manual_seed(0))
    motion = dominant_motion(dis_flow(clip))
    assert float((motion[..., 0] + 1).abs().mean()) < 0.25


def test_steady_and_accelerated_motion_have_almost_no_jerk(texture: np.ndarray) -> None:
    time = np.arange(17)[:, None]
    still = straight((0.0, 0.0), 17)
    steady = straight((2.0, 1.0), 17)
    accelerated = 0.5 * 0.15 * time**2 * np.array([1.0, -0.5])
    clips = torch.cat([clip_along(texture, path) for path in (still, steady, accelerated)])
    jerk = flow_jerk(clips)
    assert jerk[0] == 0
    assert float(jerk.max()) < 0.1


def test_white_jitter_has_the_jerk_of_its_closed_form_whatever_its_size(texture: np.ndarray) -> None:
    # White positions of std s: the third difference has std sqrt(20) s, the first sqrt(2) s, ratio sqrt(10).
    rng = np.random.default_rng(1)
    unit = rng.normal(size=(40, 2))
    for size in (1.0, 2.0):
        jerk = float(flow_jerk(clip_along(texture, size * unit), speed_floor=1e-3))
        assert jerk == pytest.approx(np.sqrt(10), rel=0.15)


def test_flow_noise_of_a_still_picture_does_not_read_as_shaking(texture: np.ndarray) -> None:
    clip = clip_along(texture, straight((0.0, 0.0), 17))
    noisy = clip + 0.01 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))
    assert float(flow_jerk(noisy)) < 0.15
    assert float(flow_jerk(noisy, speed_floor=1e-6)) > 1


def test_jerk_does_not_depend_on_batch_or_on_the_number_of_opencv_threads(texture: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    paths = [straight((1.0, 0.5)) + rng.normal(0, 0.5, (9, 2)) for _ in range(3)]
    clips = torch.cat([clip_along(texture, path) for path in paths])
    together = flow_jerk(clips)
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        alone = torch.cat([flow_jerk(clip[None]) for clip in clips])
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


def test_flow_jerk_separates_steady_from_shaky_world_clips() -> None:
    clips = render_clips([sample_scene("validation", i) for i in range(40)])
    jerk = flow_jerk(clips.frames)
    shaky = clips.is_shaky
    assert 8 <= int(shaky.sum()) <= 32
    assert auc(jerk[shaky].numpy(), jerk[~shaky].numpy()) >= 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flow_jerk(torch.zeros(1, 3, 48, 64, 3)), "at least 4"),
        (lambda: flow_jerk(torch.zeros(1, 5, 48, 64, 3), speed_floor=0), "speed_floor is 0"),
        (lambda: dis_flow(torch.zeros(1, 5, 12, 64, 3)), "sides of 16 or more"),
        (lambda: dis_flow(torch.zeros(1, 5, 3, 48, 64)), r"expected floating point \[B, T, H, W, 3\]"),
        (lambda: dis_flow(torch.zeros(1, 5, 48, 64, 3, dtype=torch.uint8)), "torch.uint8"),
    ],
)
def test_bad_clips_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
