"""Epipolar errors of matched SIFT points: as published, and robust against wrong matches.

A static scene filmed by a moving camera has one fundamental matrix F for a pair of frames, on whose epipolar
lines all matches lie. What does not fit, in pixels, is called the epipolar error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vggrpo.evaluation.videos.base import Clip, FrameMetric, Measured, Video

FloatArray = NDArray[np.float64]
Points = NDArray[np.float32]
"""[N, 2] pixels, (x right, y down)."""

RATIO = 0.75
"""A match is kept if its descriptor distance is below this share of the second best's."""
MIN_MATCHES = 20
"""A pair of frames with fewer is not measured."""


@dataclass(frozen=True, eq=False)
class Features:
    """SIFT features of one frame."""

    points: Points
    descriptors: NDArray[np.float32]
    """[N, 128]."""
    strength: NDArray[np.float32]
    """[N], the detector's response."""

    def strongest(self, most: int) -> "Features":
        """The `most` features of greatest strength."""
        order = np.argsort(-self.strength, kind="stable")[:most]
        return Features(self.points[order], self.descriptors[order], self.strength[order])


@dataclass(frozen=True)
class PairError:
    """One pair of frames."""

    error: float
    """Pixels; NaN if there is no fundamental matrix."""
    inlier_rate: float
    displacement: float
    """Median length of the matches' motion, pixels."""


@dataclass(frozen=True)
class EpipolarMetric(FrameMetric):
    """Both errors of a clip, from one pass over its features.

    Values: `epipolar_error`, `epipolar_inliers` and `epipolar_pairs` as published by Epipolar-DPO (every 15th
    frame; F by the normalised 8-point algorithm from all matches; mean Sampson distance); and
    `epipolar_robust_error`, `epipolar_robust_inliers` and `epipolar_robust_pairs` (every adjacent pair; F by
    MAGSAC++; the pair's median Sampson distance, averaged over pairs).

    Where nothing moves, any F fits and the error is near 0. A robust pair whose matches move by less than
    `still_pixels` in the median is left out; a clip with no other pairs is noted as static, without a value.
    """

    stride: int = 15
    """Frames between the two of a published pair."""
    inlier_pixels: float = 5.0
    """Sampson distance of an inlier of the published error."""
    magsac_pixels: float = 1.0
    """MAGSAC++'s inlier threshold, and that of the robust error's inlier rate."""
    robust_features: int = 1000
    """Strongest features of a frame that the robust error matches: matching costs their square."""
    still_pixels: float = 0.1
    """Median motion below which a pair says nothing: SIFT positions are not better than that."""

    name = "epipolar"
    metrics = (
        "epipolar_error",
        "epipolar_inliers",
        "epipolar_pairs",
        "epipolar_robust_error",
        "epipolar_robust_inliers",
        "epipolar_robust_pairs",
    )

    def settings(self) -> Mapping[str, Any]:
        """See the class."""
        return {**asdict(self), "ratio": RATIO, "min_matches": MIN_MATCHES, "opencv": cv2.__version__}

    def compute(self, video: Video, clip: Clip) -> Measured:
        """See the class."""
        published: list[PairError] = []
        robust: list[PairError] = []
        sift = cv2.SIFT.create()
        last = sampled = None
        for number, frame in enumerate(video.frames):
            features = sift_features(sift, frame)
            strongest = features.strongest(self.robust_features)
            if last is not None and (matches := match_features(last, strongest)) is not None:
                robust.append(magsac_error(*matches, self.magsac_pixels))
            last = strongest
            if number % self.stride:
                continue
            if sampled is not None and (matches := match_features(sampled, features)) is not None:
                published.append(eight_point_error(*matches, self.inlier_pixels))
            sampled = features
        values, notes = {}, []
        for kind, pairs, prefix in (
            ("published", published, "epipolar_"),
            ("robust", robust, "epipolar_robust_"),
        ):
            moving = [pair for pair in pairs if pair.displacement >= self.still_pixels]
            kept = moving if kind == "robust" or not moving else pairs
            used = [pair for pair in kept if np.isfinite(pair.error)]
            values[f"{prefix}error"] = float(np.mean([pair.error for pair in used])) if used else np.nan
            values[f"{prefix}inliers"] = float(np.mean([p.inlier_rate for p in used])) if used else np.nan
            values[f"{prefix}pairs"] = float(len(used))
            if not used:
                notes.append(self._why_none(kind, pairs, bool(moving), len(video.frames)))
        return Measured(values, tuple(notes))

    def _why_none(self, kind: str, pairs: Sequence[PairError], moves: bool, num_frames: int) -> str:
        if moves:
            return f"no fundamental matrix fits the matches for the {kind} error"
        if pairs:
            motion = float(np.median([pair.displacement for pair in pairs]))
            return (
                f"static: matched points move by {motion:.2g} px in the median, so the {kind} error says "
                "nothing"
            )
        if kind == "published" and num_frames <= self.stride:
            return f"too short for the published error: {num_frames} frames, pairs are {self.stride} apart"
        return f"no pair of frames has {MIN_MATCHES} matched points for the {kind} error"


def sift_features(sift: cv2.SIFT, frame: NDArray[np.uint8]) -> Features:
    """Features of an RGB frame [H, W, 3] at its own size."""
    keypoints, descriptors = sift.detectAndCompute(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), None)
    return Features(
        np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2),
        np.zeros((0, 128), np.float32) if descriptors is None else descriptors,
        np.array([keypoint.response for keypoint in keypoints], np.float32),
    )


def match_features(a: Features, b: Features) -> tuple[Points, Points] | None:
    """Matched positions [N, 2] in both frames by the ratio test; None if they are fewer than MIN_MATCHES."""
    if len(a.points) < MIN_MATCHES or len(b.points) < MIN_MATCHES:
        return None
    pairs = cv2.BFMatcher().knnMatch(a.descriptors, b.descriptors, k=2)
    kept = [best for best, second in pairs if best.distance < RATIO * second.distance]
    if len(kept) < MIN_MATCHES:
        return None
    return a.points[[match.queryIdx for match in kept]], b.points[[match.trainIdx for match in kept]]


def eight_point_error(a: Points, b: Points, inlier_pixels: float) -> PairError:
    """F from all matches; mean over all of sqrt(Sampson distance^2 + 1e-8)."""
    fundamental, _ = cv2.findFundamentalMat(a, b, cv2.FM_8POINT)
    distance = np.sqrt(_sampson(a, b, fundamental) ** 2 + 1e-8)
    return PairError(float(distance.mean()), _share(distance, inlier_pixels), _displacement(a, b))


def magsac_error(a: Points, b: Points, threshold: float) -> PairError:
    """F by MAGSAC++ (whose random numbers OpenCV seeds itself); median Sampson distance over all matches."""
    try:
        fundamental, _ = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, threshold, 0.9999, 10_000)
    except cv2.error:  # an assertion of OpenCV's, where all its samples are degenerate
        fundamental = None
    distance = _sampson(a, b, fundamental)
    return PairError(float(np.median(distance)), _share(distance, threshold), _displacement(a, b))


def _sampson(a: Points, b: Points, fundamental: FloatArray | None) -> FloatArray:
    """Sampson distances [N] in pixels; NaN if there is no F."""
    if fundamental is None or fundamental.shape != (3, 3):
        return np.full(len(a), np.nan)
    x_a, x_b = (np.concatenate([points, np.ones((len(points), 1))], axis=1) for points in (a, b))
    line_b, line_a = x_a @ fundamental.T, x_b @ fundamental
    normal = (line_b[:, :2] ** 2).sum(1) + (line_a[:, :2] ** 2).sum(1)
    residual = np.abs((x_b * line_b).sum(1))
    return residual / np.sqrt(np.maximum(normal, np.finfo(np.float64).tiny))


def _share(distance: FloatArray, threshold: float) -> float:
    return float((distance < threshold).mean()) if np.isfinite(distance).all() else float("nan")


def _displacement(a: Points, b: Points) -> float:
    return float(np.median(np.linalg.norm(a - b, axis=1)))
