"""Consistency of dense local features along the optical flow: does a surface keep its texture?

In the spirit of MEt3R (features of one view, warped into another and compared), but classical: no geometry
model, no learned features. It is another measure, and its figures do not compare with MEt3R's.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vggrpo.evaluation.videos.base import Clip, FrameMetric, Measured, Video

Float32Array = NDArray[np.float32]
Cells = tuple[Float32Array, Float32Array]
"""Pooled gradients of the first and the second half of the orientations, [H, W, 4] each: OpenCV interpolates
four channels at a time."""

ORIENTATIONS = 8
GRID = 2
"""Pixels between the points that are compared."""
CELL_SIGMA = 2.0
"""Pixels over which gradients are pooled."""
CELL_OFFSET = 4
"""Pixels from a point to the cells to its left, right, top and bottom."""
CLIPPED = 0.2
"""Largest entry of a descriptor before it is normalised once more, as in SIFT: lighting matters less."""
SMALLEST_SIDE = 32


@dataclass(frozen=True)
class FeatureConsistencyMetric(FrameMetric):
    """`feature_consistency`: mean cosine of the descriptors of a point and of where the flow takes it in the
    next frame; `feature_coverage`: share of points that could be compared. Points are every second pixel.

    A point is compared if it has texture, and if the flow back from where it lands returns to it (Sundaram et
    al. 2010): |f + b|^2 < .01 (|f|^2 + |b|^2) + .5. Frames are shrunk first so that their longer side is
    `side`: figures of clips of several sizes compare.
    """

    side: int = 256
    """Longer side of the frames, pixels; smaller frames are left as they are."""
    texture: float = 4.0
    """Least length of the pooled gradient of a point with texture, in grey levels per pixel."""

    name = "features"
    metrics = ("feature_consistency", "feature_coverage")

    def settings(self) -> Mapping[str, Any]:
        """See the class."""
        return {
            **asdict(self),
            "descriptor": "gradients-8x5",
            "flow": "dis-medium",
            "opencv": cv2.__version__,
        }

    def compute(self, video: Video, clip: Clip) -> Measured:
        """See the class."""
        height, width = video.frames.shape[1:3]
        scale = min(1.0, self.side / max(height, width))
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        if min(size) < SMALLEST_SIDE:
            return self.unmeasured(
                f"{size[0]}x{size[1]} pixels are too few, {SMALLEST_SIDE} a side are needed"
            )
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        points = np.stack(np.meshgrid(*(np.arange(0, length, GRID) for length in size)), axis=-1)
        points = points.astype(np.float32)
        shrunk = (
            cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
            for frame in video.frames
        )
        pooled = ((grey, gradient_cells(grey)) for grey in shrunk)
        similarities, shares = [], []
        for (grey_a, cells_a), (grey_b, cells_b) in pairwise(pooled):
            forward, backward = dis.calc(grey_a, grey_b, None), dis.calc(grey_b, grey_a, None)
            landed, returns = landing_places(points, forward, backward)
            texture = np.linalg.norm(_sample(cells_a, points), axis=-1)
            kept = returns & (texture > self.texture)
            shares.append(float(kept.mean()))
            if kept.any():
                cosine = (describe(cells_a, points) * describe(cells_b, landed)).sum(-1)
                similarities.append(float(cosine[kept].mean()))
        values = {"feature_consistency": float("nan"), "feature_coverage": float(np.mean(shares))}
        if not similarities:
            return Measured(values, ("no textured point can be followed to the next frame",))
        values["feature_consistency"] = float(np.mean(similarities))
        return Measured(values)


def gradient_cells(grey: NDArray[np.uint8]) -> Cells:
    """What descriptors are made from: [H, W] to the pooled gradients around each pixel.

    The positive part of the gradient along each of eight directions, in grey levels per pixel, pooled by a
    Gaussian.
    """
    image = grey.astype(np.float32)
    dx = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    dy = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    channels = []
    for angle in np.arange(ORIENTATIONS) * (2 * np.pi / ORIENTATIONS):
        along = np.float32(np.cos(angle)) * dx + np.float32(np.sin(angle)) * dy
        channels.append(cv2.GaussianBlur(np.maximum(along, 0), (0, 0), CELL_SIGMA))
    half = ORIENTATIONS // 2
    return cv2.merge(channels[:half]), cv2.merge(channels[half:])


def describe(cells: Cells, points: Float32Array) -> Float32Array:
    """Unit descriptors [h, w, 40] at points [h, w, 2]: the cells there and at four places around."""
    offsets = CELL_OFFSET * np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)
    around = np.concatenate([_sample(cells, points + offset) for offset in offsets], axis=-1)
    return _unit(np.minimum(_unit(around), CLIPPED))


def landing_places(
    points: Float32Array, forward: Float32Array, backward: Float32Array
) -> tuple[Float32Array, NDArray[np.bool_]]:
    """Where the flow [H, W, 2] takes points [h, w, 2], and whether that is in the frame and leads back."""
    height, width = forward.shape[:2]
    there = _remap(forward, points)
    landed = points + there
    inside = ((landed >= 0) & (landed <= np.array([width - 1, height - 1]))).all(axis=-1)
    back = _remap(backward, landed)
    miss = ((there + back) ** 2).sum(-1)
    allowed = 0.01 * ((there**2).sum(-1) + (back**2).sum(-1)) + 0.5
    return landed, inside & (miss < allowed)


def _sample(cells: Cells, points: Float32Array) -> Float32Array:
    return np.concatenate([_remap(half, points) for half in cells], axis=-1)


def _remap(image: Float32Array, points: Float32Array) -> Float32Array:
    """Bilinear values at points [h, w, 2]; beyond the border, those at the border."""
    x, y = (np.ascontiguousarray(points[..., axis], np.float32) for axis in (0, 1))
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _unit(vectors: Float32Array) -> Float32Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
