"""Stopping at a step's boundary: a signal asks, the training answers when its state is whole."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set by the first SIGINT, SIGTERM or SIGUSR1; `check()` raises at the next safe point."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raises KeyboardInterrupt if a stop was asked for."""
        if self.requested:
            raise KeyboardInterrupt


@contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Within the context the first SIGINT, SIGTERM or SIGUSR1 is remembered; a second one interrupts at once.

    Outside the main thread, where Python allows no signal handlers, the context changes nothing.
    """
    stop = StopRequest()

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    previous: dict[int, object] = {}
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            previous[signum] = signal.signal(signum, handle)
    except ValueError:
        previous = {}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
