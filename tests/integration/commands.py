"""Running commands as a person does, in this process."""

import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vggrpo.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a command answered."""

    status: int
    out: str
    err: str


def captured(command: Callable[[], int]) -> Outcome:
    """What `command` returns and prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command()
    return Outcome(status, out.getvalue(), err.getvalue())


def vggrpo(*words: object) -> Outcome:
    """Runs `vggrpo WORDS` in this process."""
    return captured(lambda: main([str(word) for word in words]))


def vggrpo_interrupted_when(file: Path, *words: object) -> Outcome:
    """Runs `vggrpo WORDS` in this process, with a SIGINT as soon as `file` exists."""
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.is_set():
            if file.exists():
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.005)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        return vggrpo(*words)
    finally:
        ended.set()
        thread.join()
