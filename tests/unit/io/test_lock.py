"""One job a folder: the lock is another process' to refuse, and ends with its process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vggrpo.config import RunError, Settings
from vggrpo.io import RunFolder, verify_manifest, write_manifest
from vggrpo.io.lock import lock_folder

HOLDER = """
import sys
from vggrpo.io.lock import lock_folder
lock = lock_folder(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of `tmp_path` until it ends."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_by_name_until_the_first_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(RunError, match=rf"{tmp_path} is in use by process {holder.pid} on .* since 20"):
        lock_folder(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    lock = lock_folder(tmp_path)
    assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    del lock


def test_a_process_shares_its_lock_and_drops_it_with_the_last_holder(tmp_path: Path) -> None:
    first, second = lock_folder(tmp_path), lock_folder(tmp_path)
    assert first is second
    other = [sys.executable, "-c", HOLDER, str(tmp_path)]
    del first
    refused = subprocess.run(other, input="", capture_output=True, text=True, check=False)
    assert f"is in use by process {os.getpid()} on" in refused.stderr
    del second
    assert subprocess.run(other, input="", capture_output=True, text=True, check=False).stdout == "held\n"


class Empty(Settings):
    pass


def test_a_run_is_locked_from_its_making(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", Empty())
    other = [sys.executable, "-c", HOLDER, str(run.path)]
    refused = subprocess.run(other, input="", capture_output=True, text=True, check=False)
    assert f"{run.path} is in use by process {os.getpid()}" in refused.stderr


def test_a_run_that_another_process_makes_or_continues_is_refused(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(RunError, match="in use by process"):
        RunFolder.create(tmp_path, Empty())
    assert not (tmp_path / "config.yaml").exists()
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(RunError, match="in use by process"):
        RunFolder.open(tmp_path, Empty())


def test_a_folder_with_nothing_but_a_lock_is_empty(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("half")
    RunFolder.create(tmp_path, Empty())


def test_manifests_leave_the_lock_out(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    (tmp_path / "a").touch()
    write_manifest(tmp_path)
    (tmp_path / ".lock").write_text("another process")
    verify_manifest(tmp_path)
    del lock
