"""Endless deterministic supplies of clips and captions."""

from collections.abc import Iterator
from typing import Any

from vggrpo.world.rendering import WorldClips, render_clips
from vggrpo.world.sampling import sample_scene


def clip_stream(split: str, start: int, batch_size: int, **render_options: Any) -> Iterator[WorldClips]:
    """Batches of clips start, start + 1, ... of a split, without end.

    To resume, start at the number of clips already taken. `render_options` are those of `render_clips`.

    Raises:
        ValueError: if `batch_size` is not positive, or an argument is nothing for `sample_scene` or
            `render_clips`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more")
    index = start
    while True:
        specs = [sample_scene(split, index + k) for k in range(batch_size)]
        yield render_clips(specs, **render_options)
        index += batch_size


def captions(split: str, n: int) -> list[str]:
    """The captions of the first `n` clips of a split."""
    return [sample_scene(split, index).caption for index in range(n)]
