"""A signal asks for a stop; the training answers at a step's boundary."""

import os
import signal
import threading

import pytest

from vggrpo.training.interrupt import deferred_stop


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_remembered_until_the_check(signum):
    with deferred_stop() as stop:
        stop.check()
        os.kill(os.getpid(), signum)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            stop.check()


def test_a_second_signal_interrupts_at_once():
    with deferred_stop():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_earlier_handlers_return_whatever_happens():
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]

    def fail() -> None:
        with deferred_stop():
            assert signal.getsignal(signal.SIGINT) is not before[0]
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_it_does_nothing():
    outcomes = []

    def work():
        with deferred_stop() as stop:
            stop.check()
            outcomes.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcomes == [False]
