"""Micro-batches of a rollout and the progress through them."""

from collections.abc import Callable, Iterator

OnStep = Callable[[int, int], None]
"""Called after every denoising step of every micro-batch with (steps done, steps in all)."""


class MicroBatches:
    """Slices of `samples` samples, at most `size` each, with a count of the denoising steps done in them."""

    def __init__(self, samples: int, size: int | None, steps: int, on_step: OnStep | None) -> None:
        if samples < 1:
            raise ValueError("no samples were asked for; give at least one seed")
        if size is not None and size < 1:
            raise ValueError(f"micro_batch is {size}, expected at least 1, or None for all samples at once")
        self._samples, self._size = samples, size or samples
        self._done, self._total = 0, -(-samples // self._size) * steps
        self._on_step = on_step

    def __iter__(self) -> Iterator[slice]:
        for start in range(0, self._samples, self._size):
            yield slice(start, min(start + self._size, self._samples))

    def step_done(self) -> None:
        """Reports one denoising step of the current micro-batch."""
        self._done += 1
        if self._on_step is not None:
            self._on_step(self._done, self._total)
