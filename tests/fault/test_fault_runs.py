"""The command line on a run folder that another job uses, that cannot be written, or that was stopped."""

import shutil
import signal
import subprocess
import sys
import time

import pytest

from vggrpo.io import verify_manifest

HOLDER = """
import sys
from vggrpo.io.lock import lock_folder
lock = lock_folder(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""
READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 99
shift
exec "$@"
"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A run folder of the quickest command."""
    folder = tmp_path_factory.mktemp("rendered") / "clips"
    words = ("world", "render", "--count", "1", "--num-frames", "5", "--output", folder)
    subprocess.run([sys.executable, "-m", "vggrpo", *map(str, words)], check=True, capture_output=True)
    return folder


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_two_jobs_in_one_folder(vggrpo, train, tmp_path):
    """The second one is refused by name; the folder is as it was."""
    run = tmp_path / "run"
    run.mkdir()
    words = [sys.executable, "-c", HOLDER, str(run)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        before = tree(run)
        refused = vggrpo(*train)
        refused.is_a_sentence(1, f"{run} is in use by process {first.pid} on", "choose another --output")
        assert tree(run) == before
        first.kill()


def with_read_only(folder, *command):
    """Runs a command in a namespace in which not even root can write to `folder`."""
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, "sh", folder, *command]
    return subprocess.run(map(str, words), capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a folder read-only")
def test_a_folder_that_cannot_be_written(rendered):
    if with_read_only(rendered, "true").returncode:
        pytest.skip("this system lets nobody mount a file system in a namespace")
    before = tree(rendered)
    command = (sys.executable, "-m", "vggrpo", "world", "render", "--num-frames", 5, "--count", 1)
    for output, flags in ((rendered, ["--resume"]), (rendered / "new", [])):
        outcome = with_read_only(rendered, *command, "--output", output, *flags)
        assert outcome.returncode == 1, outcome.stderr
        assert f"error: {output} cannot be written (Read-only file system)" in outcome.stderr
        assert "choose another --output" in outcome.stderr
        assert "Traceback" not in outcome.stderr
    assert tree(rendered) == before


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a folder read-only")
def test_a_training_in_a_folder_that_cannot_be_written(vggrpo, train, tmp_path):
    runs = tmp_path / "runs"
    flags = (*train[:1], *train[3:])
    first = vggrpo(*flags, "--output", runs / "first", "--iterations", 1)
    assert first.status == 0, first.err
    if with_read_only(runs, "true").returncode:
        pytest.skip("this system lets nobody mount a file system in a namespace")
    before = tree(runs)
    again = ("train", "--output", runs / "first", "--resume", "--iterations", 2)
    commands = {
        runs / "first": (*again, "--allow-changes", "iterations"),
        runs / "new": (*flags, "--output", runs / "new"),
    }
    for output, command in commands.items():
        outcome = with_read_only(runs, sys.executable, "-m", "vggrpo", *command)
        assert outcome.returncode == 1, outcome.stderr
        assert f"error: {output} cannot be written (Read-only file system)" in outcome.stderr
        assert "choose another --output" in outcome.stderr
        assert "Traceback" not in outcome.stderr
    assert tree(runs) == before
    resumed = vggrpo(*commands[runs / "first"])
    assert resumed.status == 0, resumed.err
    assert (runs / "first" / "checkpoints" / "step_000002").is_dir()


def test_a_signal_during_an_evaluation(vggrpo, train, tmp_path):
    """What is measured is kept, there is a checkpoint already, and the run goes on from there."""
    run = tmp_path / "run"
    flags = (*train, "--num-evaluation-prompts", 8, "--rollout-batch", 2, "--iterations", 1)
    words = [sys.executable, "-m", "vggrpo", *map(str, flags)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        part = run / "evaluations" / "step_000000.part0of1.json"
        while not part.exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGUSR1)
        asked = time.monotonic()
        _, err = process.communicate(timeout=300)
        seconds = time.monotonic() - asked
    assert process.returncode == 130, err
    assert "What was finished is kept" in err
    assert seconds < 60
    assert part.exists(), "the evaluation was over before the signal came"
    checkpoints = list((run / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step_000000"]
    verify_manifest(checkpoints[0])

    resumed = vggrpo("train", "--output", run, "--resume")
    assert resumed.status == 0, resumed.err
    assert (run / "evaluations" / "step_000001.json").exists()
    assert not list((run / "evaluations").glob("*.part*"))
