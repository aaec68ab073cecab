"""Under torchrun a rank is killed, stopped, or falls asleep."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vggrpo.io import read_records, verify_manifest

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 300


def torchrun(folder: Path, *program: object, restarts: int = 0) -> tuple[subprocess.Popen[bytes], Path]:
    """Two processes, and the file of what they write to stderr."""
    messages = folder / "messages"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with messages.open("wb") as stderr:
        running = subprocess.Popen(
            [*launcher, f"--max-restarts={restarts}", *map(str, program)],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    return running, messages


def wait_until(condition: Callable[[], bool], running: subprocess.Popen[bytes], messages: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert running.poll() is None, messages.read_text()
        assert time.monotonic() < end, messages.read_text()
        time.sleep(0.02)


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Of every file, by which it is known whether it was written again."""
    return {path: (s.st_ino, s.st_mtime_ns) for path in folder.rglob("*") if (s := path.stat())}


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_is_restarted_and_the_run_goes_on(
    train: tuple[object, ...], tmp_path: Path, killed: int
) -> None:
    words = (*train, "--num-evaluation-prompts", 2)
    running, messages = torchrun(tmp_path, "-m", "vggrpo", *words, restarts=1)
    first_checkpoint = tmp_path / "run" / "checkpoints" / "step_000001"
    wait_until(first_checkpoint.exists, running, messages)
    written = stamps(first_checkpoint)
    children = subprocess.run(
        ["pgrep", "--parent", str(running.pid)], capture_output=True, text=True, check=True
    )
    os.kill(sorted(map(int, children.stdout.split()))[killed], signal.SIGKILL)
    assert running.wait(PATIENCE_SECONDS) == 0, messages.read_text()
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [record["step"] for record in records if "policy/kl" in record] == [1, 2]
    assert (tmp_path / "run" / "lora").is_dir()
    assert stamps(first_checkpoint) == written, "the run has begun anew"
    verify_manifest(tmp_path / "run" / "checkpoints" / "step_000002")


def test_a_signal_to_torchrun_ends_the_run_with_a_checkpoint(
    train: tuple[object, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = (*train, "--num-evaluation-prompts", 2, "--iterations", 30, "--eval-every", 30)
    running, messages = torchrun(tmp_path, "-m", "vggrpo", *words, restarts=1)
    wait_until((run / "checkpoints" / "step_000001").exists, running, messages)
    running.send_signal(signal.SIGTERM)
    assert running.wait(PATIENCE_SECONDS) != 0
    text = messages.read_text()
    assert "SignalException" in text
    assert text.count("What was finished is kept") == 2, "each rank has ended by itself"
    assert text.count("evaluate after 0 iterations: 2 samples to do") == 1, "torchrun has started again"
    assert not (run / "lora").exists()
    newest = max((run / "checkpoints").iterdir())
    verify_manifest(newest)
    done = int(newest.name.removeprefix("step_"))
    assert 1 <= done < 30
    records = read_records(run / "metrics.jsonl")
    assert [r["step"] for r in records if "policy/kl" in r] == list(range(1, done + 1))

    words = ("--resume", "--iterations", done + 1, "--allow-changes", "iterations")
    resumed, messages = torchrun(tmp_path, "-m", "vggrpo", "train", "--output", run, *words)
    assert resumed.wait(PATIENCE_SECONDS) == 0, messages.read_text()
    records = read_records(run / "metrics.jsonl")
    assert [r["step"] for r in records if "policy/kl" in r] == list(range(1, done + 2))
    assert (run / "lora").is_dir()


@pytest.mark.parametrize("how", ["stopped", "asleep"])
def test_a_rank_that_hangs_ends_the_run_with_the_stacks_of_all_that_are_alive(
    tmp_path: Path, how: str
) -> None:
    program = Path(__file__).with_name("exchanging.py")
    running, messages = torchrun(tmp_path, program, tmp_path, how)
    wait_until(lambda: all((tmp_path / rank).exists() for rank in "01"), running, messages)
    waits, hangs = (int((tmp_path / rank).read_text()) for rank in "01")
    if how == "stopped":
        os.kill(hangs, signal.SIGSTOP)
        wait_until(lambda: is_gone(waits), running, messages)
        os.kill(hangs, signal.SIGCONT)  # torchrun kills it too, but asks first, for half a minute
    assert running.wait(PATIENCE_SECONDS) != 0
    text = messages.read_text()
    assert text.count("Timeout (0:00:10") == (1 if how == "stopped" else 2)
    assert "in gather" in text
    assert "in exchange_for_ever" in text
    assert ("in oversleep" in text) == (how == "asleep")
