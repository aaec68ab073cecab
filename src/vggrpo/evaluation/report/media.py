"""Videos as data URIs that a browser plays from the page itself."""

import base64
import tempfile
from pathlib import Path

import cv2
import numpy as np

from vggrpo.evaluation.report.data import Frames
from vggrpo.io import write_video

SHOWN_HEIGHT = 288
"""Smaller clips are enlarged by a whole factor, so that the browser's own smoothing does not blur them."""


def enlarge(frames: Frames, shown_height: int = SHOWN_HEIGHT) -> Frames:
    """Frames [T, H, W, 3], bicubic, by the least whole factor that reaches `shown_height`; sides even."""
    height, width = frames.shape[1:3]
    factor = max(1, -(-shown_height // height))
    if factor > 1:
        size = (width * factor, height * factor)
        frames = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in frames])
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]


def side_by_side(left: Frames, right: Frames, length: int) -> Frames:
    """Both clips enlarged, in one picture, so always in step; the last frame is held up to `length`."""
    pair = np.concatenate([enlarge(left), enlarge(right)], axis=2)
    return np.concatenate([pair, np.repeat(pair[-1:], length - len(pair), axis=0)])


def video_uri(frames: Frames, fps: float, crf: int = 20) -> str:
    """uint8 frames [T, H, W, 3] as a base64 H.264 mp4 (yuv420p) data URI."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames, fps, crf=crf)
        encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:video/mp4;base64,{encoded}"
