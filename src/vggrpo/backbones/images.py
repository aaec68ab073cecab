"""Frames on their way into a geometry model: checks, resizing to a raster, normalisation."""

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_frames(frames: Tensor, multiple_of: int = 1) -> None:
    """Refuses anything but floating-point frames [B, T, H, W, 3] whose sides are multiples of `multiple_of`.

    Raises:
        TypeError: if the frames are not floating point.
        ValueError: if their shape is another.
    """
    if not frames.is_floating_point():
        raise TypeError(
            f"frames are {frames.dtype}, but floating-point values in [0, 1] are expected; divide by 255"
        )
    if frames.ndim != 5 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames have shape {list(frames.shape)}, but [B, T, H, W, 3] is expected")
    height, width = frames.shape[2:4]
    if height % multiple_of or width % multiple_of:
        raise ValueError(
            f"frames are {height}x{width} pixels, but this geometry model needs sides that are multiples of "
            f"{multiple_of}; resize_frames makes them so"
        )


def resize_frames(frames: Tensor, height: int, width: int) -> Tensor:
    """Frames [B, T, H, W, 3] in [0, 1] resized to [B, T, height, width, 3], bicubic with an antialias filter.

    The values stay in [0, 1]; frames that already have the size are returned as they are.

    Raises:
        TypeError, ValueError: if the frames are not floating-point [B, T, H, W, 3], or a side is not
            positive.
    """
    check_frames(frames)
    if height < 1 or width < 1:
        raise ValueError(f"the raster is {height}x{width}, but both sides must be at least 1")
    if frames.shape[2:4] == (height, width):
        return frames
    images = frames.flatten(0, 1).permute(0, 3, 1, 2)
    resized = F.interpolate(images, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)
    return resized.permute(0, 2, 3, 1).unflatten(0, frames.shape[:2])


def normalise_images(images: Tensor) -> Tensor:
    """Images [N, H, W, 3] in [0, 1] to ImageNet statistics, [N, 3, H, W] in channels-last memory."""
    mean = torch.tensor(IMAGENET_MEAN, dtype=images.dtype, device=images.device)
    std = torch.tensor(IMAGENET_STD, dtype=images.dtype, device=images.device)
    return ((images - mean) / std).permute(0, 3, 1, 2)
