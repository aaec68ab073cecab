"""How different the samples of one prompt are: falls when a policy collapses onto one video."""

import torch
from torch import Tensor
from torch.nn import functional

from vggrpo.evaluation.optical_flow import check_frames


def clip_thumbnail(frames: Tensor, side: int = 16, times: int = 5) -> Tensor:
    """Clips reduced to what a viewer would call "the same video": [B, T, H, W, 3] to [B, 3, times, h, w].

    Area average to `side` pixels on the shorter edge (never enlarged) and to at most `times` moments.
    """
    check_frames(frames)
    _, length, height, width, _ = frames.shape
    scale = min(1.0, side / min(height, width))
    size = (min(times, length), round(height * scale), round(width * scale))
    channels_first = frames.float().permute(0, 4, 1, 2, 3)
    return functional.adaptive_avg_pool3d(channels_first, size)


def group_diversity(samples: Tensor) -> Tensor:
    """Mean over all pairs of a group of the root-mean-square difference.

        d = 2 / (K (K-1)) sum_{j<k} sqrt( mean( (s_j - s_k)^2 ) )

    Args:
        samples: [K, ...], the K >= 2 samples of one prompt: clip thumbnails (d in [0, 1]) or latents.

    Returns:
        A scalar, 0 where all samples are the same.

    Raises:
        ValueError: if there are fewer than two samples.
    """
    if len(samples) < 2:
        raise ValueError(
            f"samples holds {len(samples)} sample, but diversity needs at least two of one prompt"
        )
    flat = samples.flatten(1).double()
    return (torch.pdist(flat).mean() / flat.shape[1] ** 0.5).to(samples.dtype)
