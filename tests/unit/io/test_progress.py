import io
import time

import pytest
from rich.console import Console

from vggrpo.io import format_duration, progress


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=100, color_system=None), stream


def test_lines_without_a_terminal_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sink, stream = console(terminal=False)
    with progress("training", total=100, done=20, console=sink) as bar:
        for _ in range(80):
            now[0] += 2
            bar.advance(loss=0.5, **{"time/step": 2.0})
    lines = stream.getvalue().splitlines()
    assert lines[0] == "training: 100 steps to do, continuing at 20"
    assert lines[1] == "training: 35/100, 2 s/step, 2 min 10 s left, loss 0.5"
    assert lines[-1] == "training: 100/100, 2 s/step, loss 0.5"
    assert len(lines) == 1 + 160 // 30 + 1


def test_rate_counts_only_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sink, _ = console(terminal=False)
    with progress("rendering", total=1000, done=900, unit="clip", console=sink) as bar:
        now[0] = 5.0
        bar.advance(50)
        assert bar.state() == "10 clip/s, 5 s left"


def test_bar_on_a_terminal() -> None:
    sink, stream = console(terminal=True)
    with progress("training", total=4, console=sink) as bar:
        for step in range(4):
            bar.advance(loss=step)
    shown = stream.getvalue()
    assert "training" in shown
    assert "4/4" in shown
    assert "loss 3" in shown


def test_an_error_inside_passes_through() -> None:
    sink, _ = console(terminal=True)
    with pytest.raises(RuntimeError, match="inside"), progress("x", total=2, console=sink):
        raise RuntimeError("inside")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
