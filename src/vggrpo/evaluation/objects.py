"""Whether there still are objects: empty rooms are an easy way to consistent geometry."""

import torch
from torch import Tensor
from torch.nn import functional

from vggrpo.evaluation.optical_flow import check_frames

BORDER = 1 / 16
"""Width of the border over the frame's shorter side."""
CELL, REACH = 0.08, 3.2
"""Side of a colour cell, and the largest coordinate that has cells of its own, in mean brightnesses."""
RARE = 0.05
"""Share of the border's pixels below which a colour is not the surroundings'."""


def object_presence(frames: Tensor) -> Tensor:
    """Share of the pixels whose colour hardly occurs at the border of the frame, [B] in [0, 1].

    Surroundings reach the border of the frame, most objects do not: what has none of the border's colours is
    taken for an object. A colour is the pair

        ( (R - G) / sqrt 2,  (R + G - 2 B) / sqrt 6 ) / mean of R, G, B over the clip,

    which a change of the clip's brightness leaves as it is. It is rare if fewer than RARE of the border
    pixels of all the clip's frames lie in its cell or the eight around it. (That the border shows the
    background is the prior of Wei et al., "Geodesic Saliency Using Background Priors", 2012; the measure is
    this project's.)

    It does not see an object in a colour of its surroundings (or one grey on another), nor which object it is
    or whether it is whole; an object that stands at the border for long is counted in part. A patch of the
    surroundings that never comes to the border counts as an object. The level means nothing by itself:
    compare the same prompts and noises.

    Args:
        frames: [B, T, H, W, 3] in [0, 1].

    Raises:
        ValueError: if the shape is another.
    """
    check_frames(frames)
    side = round(2 * REACH / CELL)
    cell = _colour_cell(frames.float(), side)
    clips = torch.arange(len(frames), device=frames.device)[:, None]
    border = _border(frames.shape[2], frames.shape[3]).to(frames.device)
    counts = torch.bincount(
        (clips * side**2 + cell[:, :, border].flatten(1)).flatten(), minlength=len(frames) * side**2
    ).view(-1, 1, side, side)
    share = counts.float() / counts[0].sum()
    nearby = functional.avg_pool2d(share, 3, stride=1, padding=1).flatten(1) * 9
    return (nearby.gather(1, cell.flatten(1)) < RARE).float().mean(1)


def _colour_cell(frames: Tensor, side: int) -> Tensor:
    """The number of each pixel's cell in a square of `side` x `side` cells, [B, T, H, W]."""
    red, green, blue = (frames / frames.mean((1, 2, 3, 4), keepdim=True).clamp_min(1e-3)).unbind(-1)
    opponents = ((red - green) / 2**0.5, (red + green - 2 * blue) / 6**0.5)
    row, column = (((value + REACH) / CELL).floor().long().clamp(0, side - 1) for value in opponents)
    return row * side + column


def _border(height: int, width: int) -> Tensor:
    """[H, W] bool: the pixels at the border of a frame."""
    thickness = max(1, round(BORDER * min(height, width)))
    border = torch.ones(height, width, dtype=torch.bool)
    border[thickness:-thickness, thickness:-thickness] = False
    return border
