"""Killed at any stage of saving: an older checkpoint or the new one is whole, and saving works again."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vggrpo.config import RunError, Settings
from vggrpo.io import RunFolder

STAGES = ("open", "mkdir", "replace", "rename", "unlink", "rmdir", "fsync")
"""Functions of `os` through which saving reaches the disk, beside writing itself."""


def content(value: int) -> bytes:
    return bytes([value]) * 5000


def save(run: RunFolder, step: int, value: int) -> None:
    def write(folder: Path) -> None:
        (folder / "policy.bin").write_bytes(content(value))
        (folder / "lora").mkdir()
        (folder / "lora" / "weights.bin").write_bytes(content(value))

    run.save_checkpoint(step, write, keep_last=2)


def killed_at(stage: int, work: Callable[[], None]) -> bool:
    """Runs `work` in a child that is killed before its call number `stage`; whether it came so far."""
    child = os.fork()
    if child == 0:
        calls = 0

        def reached() -> bool:
            nonlocal calls
            calls += 1
            return calls == stage

        def interrupted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                if reached():
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        write_bytes = Path.write_bytes

        def half_written(path: Path, data: bytes) -> int:
            if reached():
                write_bytes(path, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return write_bytes(path, data)

        for name in STAGES:
            setattr(os, name, interrupted(getattr(os, name)))
        Path.write_bytes = half_written  # type: ignore[method-assign]
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, outcome = os.waitpid(child, 0)
    assert outcome in (0, signal.SIGKILL)
    return outcome != 0


@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replaces"])
def test_killed_at_each_stage_of_a_checkpoint(
    tmp_path: Path, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `replaced` there is a checkpoint of that step already."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a killed process loses nothing without it
    stage, outcomes = 0, []
    while True:
        stage += 1
        run = RunFolder.create(tmp_path / str(stage), Settings())
        for step in (1, 2, 3) if replaced else (1, 2):
            save(run, step, value=step)
        killed = killed_at(stage, lambda run=run: save(run, 3, value=9))

        run = RunFolder.open(run.path, Settings())
        latest = run.latest_checkpoint()
        assert latest is not None
        assert not list(run.path.rglob(".*.partial-*")) + list(run.path.rglob(".*.replaced-*"))
        found = {(latest.path / name).read_bytes()[0] for name in ("policy.bin", "lora/weights.bin")}
        assert len(found) == 1, "files of two checkpoints"
        outcomes.append((latest.step, found.pop()))
        save(run, 3, value=7)
        again = run.latest_checkpoint()
        assert again is not None
        assert (again.path / "policy.bin").read_bytes() == content(7)
        if not killed:
            break
    assert stage > 15
    before = (3, 3) if replaced else (2, 2)
    changed = outcomes.index((3, 9))
    assert outcomes == [before] * changed + [(3, 9)] * (stage - changed)
    assert changed > 10


def test_killed_while_a_run_is_made(tmp_path: Path) -> None:
    stage = 0
    while True:
        stage += 1
        folder = tmp_path / str(stage)
        killed = killed_at(stage, lambda folder=folder: RunFolder.create(folder, Settings()))
        if not killed:
            break
        if (folder / "config.yaml").exists():
            RunFolder.open(folder, Settings())
        else:
            RunFolder.create(folder, Settings())
    assert stage > 4
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.create(folder, Settings())
