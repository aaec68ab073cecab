"""Pixel statistics: they move when a policy earns its reward by washing out, darkening or blurring."""

import torch
from torch import Tensor
from torch.nn import functional

from vggrpo.evaluation.optical_flow import check_frames

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as cv2.COLOR_RGB2GRAY."""

LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def luma(frames: Tensor) -> Tensor:
    """Frames [B, T, H, W, 3] in [0, 1] to brightness per pixel [B, T, H, W] in [0, 1]."""
    check_frames(frames)
    return frames.float() @ torch.tensor(LUMA, device=frames.device)


def brightness(frames: Tensor) -> Tensor:
    """Mean luma, [B] in [0, 1]."""
    return luma(frames).mean((1, 2, 3))


def contrast(frames: Tensor) -> Tensor:
    """Standard deviation of the luma over the pixels of a frame, mean over frames, [B] in [0, .5]."""
    return luma(frames).flatten(2).std(2, correction=0).mean(1)


def saturation(frames: Tensor) -> Tensor:
    """HSV saturation (max - min) / max, 0 on black, mean over pixels and frames, [B] in [0, 1]."""
    check_frames(frames)
    low, high = frames.float().aminmax(dim=-1)
    return ((high - low) / high.clamp_min(1e-6)).mean((1, 2, 3))


def sharpness(frames: Tensor) -> Tensor:
    """Variance of the 4-neighbour Laplacian of the luma in 0..255, inner pixels, mean over frames, [B] >= 0.

    Equals `cv2.Laplacian(grey, cv2.CV_64F)[1:-1, 1:-1].var()` of unrounded grey frames. Noise and flicker
    count as sharp. Comparable only at equal resolution.
    """
    grey = luma(frames) * 255
    kernel = torch.tensor(LAPLACIAN, device=frames.device).view(1, 1, 3, 3)
    response = functional.conv2d(grey.flatten(0, 1).unsqueeze(1), kernel)
    return response.flatten(1).var(1, correction=0).view(grey.shape[:2]).mean(1)


PIXEL_STATISTICS = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "sharpness": sharpness,
}


def pixel_statistics(frames: Tensor) -> dict[str, Tensor]:
    """All of them by name, each [B]."""
    return {name: statistic(frames) for name, statistic in PIXEL_STATISTICS.items()}
