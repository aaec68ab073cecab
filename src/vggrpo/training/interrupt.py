"""Stopping where the state is whole: a signal asks, the training answers at its next safe point."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from types import FrameType

import torch
from torch import nn

from vggrpo.training.ranks import Ranks

SAME_SIGNAL_SECONDS = 1.0
"""A launcher passes on to its processes a signal that all of them may have got already: within this time
signals count as one."""


class Stopped(KeyboardInterrupt):
    """A stop that was asked for, at a safe point; a second signal is a plain KeyboardInterrupt."""


class StopRequest:
    """Set by the first SIGINT, SIGTERM or SIGUSR1; `check()` raises at the next safe point."""

    def __init__(self) -> None:
        self.requested = False
        self._lockstep: Ranks | None = None

    def check(self) -> None:
        """Raises `Stopped` if a stop was asked for."""
        stopping = self.requested
        if self._lockstep is not None:
            stopping = self.of_any(self._lockstep)  # an exchange, which all ranks make
        if stopping:
            raise Stopped

    def of_any(self, ranks: Ranks) -> bool:
        """Whether any rank was asked to stop, by which all can act alike: a signal that comes during the
        exchange counts in the next one.
        """
        asked = ranks.any(self.requested)
        if asked:
            self.requested = True
        return asked

    @contextmanager
    def together(self, ranks: Ranks) -> Iterator[None]:
        """A piece of work without exchanges, which a stop request to any rank ends on all of them.

        A rank that is asked to stop leaves the block at its next `check()`; the others hear of it at the
        block's end, and likewise of a value that is not finite. Ranks in lockstep, which make the same
        checks, all leave at the same one; a value that is not finite ends its own rank alone there, and
        torchrun the others.

        Raises:
            Stopped: on every rank.
            FloatingPointError: on every rank, if it is raised in the block on one.
        """
        self._lockstep = ranks if ranks.lockstep else None
        failure: FloatingPointError | None = None
        try:
            with suppress(Stopped):
                yield
        except FloatingPointError as error:
            if ranks.lockstep:
                raise
            failure = error
        finally:
            self._lockstep = None
        found = [message for message in ranks.gather(failure and str(failure)) if message]
        if found:
            raise failure or FloatingPointError(found[0])
        if self.of_any(ranks):
            raise Stopped


_active: StopRequest | None = None


@contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Within the context the first SIGINT, SIGTERM or SIGUSR1 is remembered; one that comes more than
    `SAME_SIGNAL_SECONDS` later interrupts at once.

    A context within another one shares its request. Outside the main thread, where Python allows no signal
    handlers, the context changes nothing.
    """
    global _active
    if _active is not None:
        yield _active
        return
    stop = StopRequest()
    first: float | None = None

    def handle(signum: int, frame: FrameType | None) -> None:
        # Not by `requested`: that may be another rank's, and this the same signal on its way to this one.
        nonlocal first
        now = time.monotonic()
        first = now if first is None else first
        if now - first > SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt
        stop.requested = True

    previous: dict[int, object] = {}
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            previous[signum] = signal.signal(signum, handle)
        _active = stop
    except ValueError:
        previous = {}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if _active is stop:
            _active = None


@contextmanager
def undone_if_stopped(parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """A `Stopped` within the context leaves weights and optimizer as they were before it."""
    before = [parameter.detach().clone() for parameter in parameters]
    state = deepcopy(optimizer.state_dict())
    try:
        yield
    except Stopped:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        optimizer.load_state_dict(state)
        raise
