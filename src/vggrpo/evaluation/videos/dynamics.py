"""How much happens in a clip: optical flow, and distance from the first frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vggrpo.evaluation.optical_flow import SPEED_FLOOR
from vggrpo.evaluation.videos.base import Clip, FrameMetric, Measured, Video

FloatArray = NDArray[np.float64]
SMALLEST_SIDE = 16
"""Pixels that DIS needs."""
SSIM_SIGMA = 1.5
SSIM_WINDOW = 11


@dataclass(frozen=True)
class DynamicsMetric(FrameMetric):
    """`flow_magnitude` and `flow_jerk` as in `vggrpo.evaluation.optical_flow`, pair by pair, so that a long
    clip's flow is never in memory at once; and `change_from_first`, the mean of 1 - SSIM to frame 0."""

    name = "dynamics"
    metrics = ("flow_magnitude", "flow_jerk", "change_from_first")

    def settings(self) -> Mapping[str, Any]:
        """See the class."""
        return {"flow": "dis-medium", "speed_floor": SPEED_FLOOR, "opencv": cv2.__version__}

    def compute(self, video: Video, clip: Clip) -> Measured:
        """See the class."""
        height, width = video.frames.shape[1:3]
        if min(height, width) < SMALLEST_SIDE:
            return self.unmeasured(f"{width}x{height} pixels are too few, {SMALLEST_SIDE} a side are needed")
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video.frames]
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        lengths, motions = [], []
        for a, b in pairwise(grey):
            flow = dis.calc(a, b, None)
            lengths.append(float(np.hypot(flow[..., 0], flow[..., 1]).mean()))
            motions.append(np.median(flow.reshape(-1, 2), axis=0))
        values = {
            "flow_magnitude": float(np.mean(lengths)),
            "flow_jerk": jerk_of_motion(np.array(motions, np.float64)),
            "change_from_first": float(np.mean([1 - ssim(grey[0], frame) for frame in grey[1:]])),
        }
        short = len(video.frames) < 4
        return Measured(values, ("too short for the flow's jerk: fewer than 4 frames",) if short else ())


def jerk_of_motion(motion: FloatArray) -> float:
    """`flow_jerk` of the dominant motion [T-1, 2] in pixels per frame; NaN of fewer than three."""
    if len(motion) < 3:
        return float("nan")
    jerk = np.linalg.norm(np.diff(motion, n=2, axis=0), axis=1).mean()
    return float(jerk / (np.linalg.norm(motion, axis=1).mean() + SPEED_FLOOR))


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Structural similarity of two grey images [H, W] (Wang et al. 2004), in [-1, 1].

    Gaussian window of 11 pixels and standard deviation 1.5, K1 = .01, K2 = .03, range 255; mean over the
    windows that lie within the image.
    """
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    var_x = _window_mean(x * x) - mean_x**2
    var_y = _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def _window_mean(image: FloatArray) -> FloatArray:
    border = SSIM_WINDOW // 2
    blurred = cv2.GaussianBlur(image, (SSIM_WINDOW, SSIM_WINDOW), SSIM_SIGMA)
    return blurred[border:-border, border:-border]
