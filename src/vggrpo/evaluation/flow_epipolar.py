"""Epipolar error of optical flow, for clips that are too small or too plain for feature matches.

A small clip of smooth surfaces has few SIFT features, and `videos/epipolar.py` finds no pair to measure.
Dense flow has a match everywhere; it is trusted where the picture has structure and where the flow back
returns to the start.
"""

import math
from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggrpo.evaluation.optical_flow import check_frames, one_thread
from vggrpo.evaluation.videos.epipolar import MIN_MATCHES, Points, magsac_error

GAP = 4
"""Frames between the two of a pair: as far apart as the moments that a latent clip has."""
SIDE = 192
"""Frames with a shorter side below are enlarged by a whole factor: DIS looks at patches of 8 pixels."""
SPACING = 6
"""Of the grid of points, enlarged pixels."""
RETURN_TOLERANCE = 1.0
"""Farthest from its start that a point may come back to, enlarged pixels."""
STRUCTURE = 1e-5
"""Least eigenvalue of the structure tensor (OpenCV's `cornerMinEigenVal`, block of 7): flow along a plain
surface is a guess."""
STILL = 0.1
"""Median motion in pixels below which a pair says nothing: any epipolar geometry fits it."""
THRESHOLD = 1.0
"""MAGSAC++'s inlier threshold, enlarged pixels."""

Grey = NDArray[np.uint8]


def flow_epipolar_error(frames: Tensor, gap: int = GAP) -> Tensor:
    """How far points are from their epipolar lines: the median Sampson distance, averaged over pairs.

    Pairs are frames (0, gap), (gap, 2 gap), ...; each has its fundamental matrix by MAGSAC++ from the flow
    between them (DIS, "medium"). A static scene has 0 for any motion of the camera; points on moving objects
    are outliers.

    Args:
        frames: [B, T, H, W, 3] in [0, 1], T > gap.
        gap: frames between the two of a pair.

    Returns:
        [B] in pixels of the frames; NaN where no pair has enough points that move.

    Raises:
        ValueError: if the shape is another, or a clip is too short.
    """
    check_frames(frames, at_least=gap + 1)
    scale = max(1, math.ceil(SIDE / min(frames.shape[2:4])))
    images = (frames.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    with one_thread():
        errors = [_clip_error([_grey(image, scale) for image in clip[::gap]], scale) for clip in images]
    return torch.tensor(errors, dtype=torch.float32)


def _grey(image: NDArray[np.uint8], scale: int) -> Grey:
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.cvtColor(large, cv2.COLOR_RGB2GRAY))


def _clip_error(moments: list[Grey], scale: int) -> float:
    """Mean over adjacent moments, pixels before enlarging; NaN if none can be measured."""
    errors = []
    for first, second in pairwise(moments):
        start, end = flow_matches(first, second)
        if len(start) < MIN_MATCHES:
            continue
        pair = magsac_error(start, end, THRESHOLD)
        if np.isfinite(pair.error) and pair.displacement >= STILL * scale:
            errors.append(pair.error / scale)
    return float(np.mean(errors)) if errors else float("nan")


def flow_matches(first: Grey, second: Grey) -> tuple[Points, Points]:
    """Points [N, 2] of a grid, (x right, y down), in two grey pictures [H, W], where flow is trusted."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there, back = dis.calc(first, second, None), dis.calc(second, first, None)
    height, width = first.shape
    ys, xs = np.mgrid[SPACING // 2 : height : SPACING, SPACING // 2 : width : SPACING].reshape(2, -1)
    start = np.stack([xs, ys], axis=1).astype(np.float32)
    end = start + there[ys, xs]
    columns, rows = np.rint(end).astype(int).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    returned = end + back[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    trusted = np.linalg.norm(returned - start, axis=1) < RETURN_TOLERANCE
    structured = cv2.cornerMinEigenVal(first, 7)[ys, xs] > STRUCTURE
    keep = inside & trusted & structured
    return start[keep], end[keep]
