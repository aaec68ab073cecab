"""A fixed set of the world's clips in memory, rendered once, drawn from by step number."""

import torch
from torch import Tensor

from vggrpo.config.pretrain import ClipSettings
from vggrpo.io import make_generator, progress
from vggrpo.world import render_clips, sample_scene

RENDER_BATCH = 16


class ClipPool:
    """`count` clips of a split as uint8 [N, T, H, W, 3], with their captions."""

    def __init__(self, split: str, count: int, clips: ClipSettings) -> None:
        self.captions: list[str] = []
        frames = []
        with progress(f"render {split} clips", total=count) as bar:
            for start in range(0, count, RENDER_BATCH):
                specs = [sample_scene(split, i) for i in range(start, min(start + RENDER_BATCH, count))]
                batch = render_clips(
                    specs, height=clips.height, width=clips.width, num_frames=clips.num_frames
                )
                frames.append(to_uint8(batch.frames))
                self.captions += batch.captions
                bar.advance(len(specs))
        self.frames = torch.cat(frames)

    def __len__(self) -> int:
        return len(self.frames)

    def draw(self, count: int, *seed: int | str) -> Tensor:
        """`count` clip indices, the same for the same seed."""
        return torch.randint(len(self), (count,), generator=make_generator(*seed))


def to_uint8(frames: Tensor) -> Tensor:
    """Frames in [0, 1] to bytes, rounded."""
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8)


def to_float(frames: Tensor) -> Tensor:
    """Bytes to frames in [0, 1]."""
    return frames.float() / 255
