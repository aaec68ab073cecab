"""A signal asks for a stop; the training answers at a step's boundary."""

import os
import signal
import threading

import pytest
import torch

from vggrpo.training import interrupt
from vggrpo.training.interrupt import Stopped, deferred_stop, undone_if_stopped
from vggrpo.training.ranks import Ranks


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_the_first_signal_is_remembered_until_the_check(signum):
    with deferred_stop() as stop:
        stop.check()
        os.kill(os.getpid(), signum)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            stop.check()


def test_a_second_signal_interrupts_at_once(monkeypatch):
    monkeypatch.setattr(interrupt, "SAME_SIGNAL_SECONDS", 0.0)
    with deferred_stop():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_a_launcher_passes_on_is_no_second_one():
    with deferred_stop() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            stop.check()


def test_a_signal_that_another_rank_got_earlier_is_no_second_one(monkeypatch):
    monkeypatch.setattr(interrupt, "SAME_SIGNAL_SECONDS", 0.0)
    with deferred_stop() as stop:
        assert stop.of_any(AskedElsewhere())
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            stop.check()


def test_a_context_within_another_shares_its_request():
    with deferred_stop() as outer:
        with deferred_stop() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            assert inner.requested
        assert outer.requested, "what came within the inner context is not lost after it"
        with deferred_stop() as later, pytest.raises(Stopped):
            later.check()
    with deferred_stop() as fresh:
        fresh.check()


def test_work_that_is_stopped_ends_at_the_blocks_end():
    done = []

    def work(stop):
        with stop.together(Ranks()):
            done.append("begun")
            os.kill(os.getpid(), signal.SIGTERM)
            stop.check()
            done.append("over")

    with deferred_stop() as stop:
        with pytest.raises(Stopped):
            work(stop)
        with pytest.raises(Stopped), stop.together(Ranks()):
            done.append("without a check")
    assert done == ["begun", "without a check"]


class AskedElsewhere(Ranks):
    """Another rank was asked to stop."""

    def any(self, flag):
        return True


class SignalledMeanwhile(Ranks):
    """Gets a signal while it exchanges with the others, who have none."""

    def any(self, flag):
        if not flag:
            os.kill(os.getpid(), signal.SIGTERM)
        return flag


def test_a_signal_during_an_exchange_counts_in_the_next_one():
    """At once, this rank alone would stop; forgotten, none."""
    with deferred_stop() as stop:
        with stop.together(SignalledMeanwhile()):
            pass
        assert stop.requested
        with pytest.raises(Stopped), stop.together(Ranks()):
            pass


def test_ranks_in_lockstep_stop_at_the_check_after_the_signal():
    checks = []

    def work(stop):
        with stop.together(SignalledMeanwhile(lockstep=True)):
            for check in range(3):
                stop.check()
                checks.append(check)

    with deferred_stop() as stop, pytest.raises(Stopped):
        work(stop)
    assert checks == [0]


def test_weights_and_optimizer_return_to_where_they_were_when_stopped():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)

    def step():
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()

    step()
    before, moment = parameter.detach().clone(), optimizer.state[parameter]["exp_avg"].clone()

    def stopped_after_a_step():
        with undone_if_stopped([parameter], optimizer):
            step()
            raise Stopped

    with pytest.raises(Stopped):
        stopped_after_a_step()
    assert torch.equal(parameter, before)
    assert torch.equal(optimizer.state[parameter]["exp_avg"], moment)
    assert float(optimizer.state[parameter]["step"]) == 1
    with undone_if_stopped([parameter], optimizer):
        step()
    assert not torch.equal(parameter, before)


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
