"""Many clips on one picture: some frames of each in a row, its caption beneath."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from torch import Tensor

from vggrpo.io import atomic_file

DPI = 100
FONT_SIZE = 8.0
LINE_HEIGHT = 14
CHARACTER_WIDTH = 6.3
"""Pixels, on average, at FONT_SIZE and DPI."""
MARGIN = 12


def draw_contact_sheet(
    frames: Tensor,
    captions: Sequence[str],
    path: Path | str,
    *,
    frames_per_clip: int = 5,
    columns: int = 2,
    scale: int = 3,
) -> None:
    """Draws evenly spaced frames of every clip, each pixel enlarged to a square; the suffix sets the format.

    Args:
        frames: [N, T, H, W, 3] in [0, 1].
        captions: N.
        path: of the picture.
        frames_per_clip: frames of each clip, the first and the last among them.
        columns: clips side by side.
        scale: side of an enlarged pixel.

    Raises:
        ValueError: if there is not one caption for each clip.
    """
    from matplotlib.figure import Figure

    if len(captions) != len(frames) or not len(frames):
        raise ValueError(f"captions has {len(captions)} entries for {len(frames)} clips; give one for each")
    strips = clip_strips(frames, frames_per_clip, scale)
    _, height, width, _ = strips.shape
    texts = [wrap(caption, max(int(width / CHARACTER_WIDTH), 1)) for caption in captions]
    cell_height = height + LINE_HEIGHT * max(map(len, texts)) + MARGIN
    rows = -(-len(strips) // columns)
    sheet = np.full(
        (MARGIN + rows * cell_height, MARGIN + columns * (width + MARGIN), 3), 255, dtype=np.uint8
    )
    figure = Figure(figsize=(sheet.shape[1] / DPI, sheet.shape[0] / DPI), dpi=DPI)
    for place, (strip, lines) in enumerate(zip(strips, texts, strict=True)):
        row, column = divmod(place, columns)
        top, left = MARGIN + row * cell_height, MARGIN + column * (width + MARGIN)
        sheet[top : top + height, left : left + width] = strip
        figure.text(
            left / sheet.shape[1],
            1 - (top + height + 2) / sheet.shape[0],
            "\n".join(lines),
            fontsize=FONT_SIZE,
            verticalalignment="top",
        )
    figure.figimage(sheet, origin="upper")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=DPI)


def clip_strips(frames: Tensor, frames_per_clip: int, scale: int) -> np.ndarray:
    """Bytes [N, scale * H, frames_per_clip * scale * W, 3]: evenly spaced frames side by side."""
    chosen = torch.linspace(0, frames.shape[1] - 1, frames_per_clip).round().long()
    pixels = (frames[:, chosen].clamp(0, 1) * 255).round().to(torch.uint8)
    enlarged = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return enlarged.movedim(1, 2).flatten(2, 3).cpu().numpy()
