"""A gate of invented rewards, with all that a gate can hold."""

import functools

import numpy as np

from vggrpo.evaluation import ClipQuality, Interval, LGMGate, NoisePoint, noise_response, rank_agreement

NAN = float("nan")


def rewards(seed: int, count: int = 120, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """LGM, teacher and repeated teacher: the first is noisier than the last."""
    rng = np.random.default_rng(seed)
    teacher = rng.normal(size=count)
    return teacher + noise * rng.normal(size=count), teacher, teacher + 0.2 * rng.normal(size=count)


@functools.cache
def make_gate() -> LGMGate:
    """A gate with a good reward, a bad one with failures, and noise curves."""
    good, bad = rewards(0, noise=0.3), rewards(1, noise=3.0)
    bad[0][:2] = NAN
    qualities = {"camera_motion": rank_agreement(*good), "reprojection": rank_agreement(*bad)}
    points = []
    for level in (0.0, 0.1, 0.4):
        noisy = good[0] + level, good[1] + 3 * level * np.random.default_rng(5).normal(size=120)
        points.append(NoisePoint(level, *(noise_response(values, good[1]) for values in noisy)))
    quality = ClipQuality(qualities, {"depth_abs_rel": Interval(0.1, 0.09, 0.11, 120)})
    return LGMGate(
        weights="ab" * 32,
        base_model="micro",
        geometry_model="micro",
        clip=(17, 48, 64),
        options={"camera_motion": {"order": "jerk"}, "reprojection": {"occlusion_tolerance": None}},
        generated=quality,
        real=quality,
        robustness={"camera_motion": tuple(points)},
        steady_shaky_auc={"lgm": Interval(0.95, 0.9, 0.98, 60), "teacher": Interval(0.97, NAN, NAN, 60)},
    )
