"""The disk is full at a checkpoint: a sentence, everything older is whole, and with room the run goes on."""

import subprocess
import sys

import pytest

ON_A_SMALL_DISK = """
mount -t tmpfs -o size="$2" tmpfs "$1" || exit 99
cd "$1"; room="$3"; shift 3
"$@"; echo "status $?"
find run | sort
python=$1
"$python" -c 'import sys, vggrpo.io; vggrpo.io.verify_manifest(sys.argv[1])' run/checkpoints/step_000001 \\
    && echo "the first checkpoint is whole"
mount -o remount,size="$room" . || exit 99
echo "with room"
"$python" -m vggrpo train --output run --resume; echo "status $?"
cut -d, -f1 run/metrics.jsonl
find run | sort
"""
"""A disk of its own, in a namespace of its own, that vanishes with the process; later it has more room."""


def in_namespace(*command):
    words = ["unshare", "--map-root-user", "--mount", *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=500)


@pytest.fixture
def small_disk(tmp_path):
    """Runs a command with a file system of a size as its working folder, and with more room goes on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        possible = in_namespace("mount", "-t", "tmpfs", "tmpfs", folder).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("this system lets nobody mount a file system in a namespace (unshare)")
    return lambda size, room, *command: in_namespace(
        "sh", "-c", ON_A_SMALL_DISK, "sh", folder, size, room, *command
    )


def test_train(small_disk, train):
    """A checkpoint of a LoRA of rank 32 has 12 MB: there is room for one, but not for two."""
    command = [sys.executable, "-m", "vggrpo", *train, "--lora-rank", 32, "--output", "run"]
    outcome = small_disk("20m", "80m", *command)
    assert outcome.returncode == 0, outcome.stderr
    full, roomy = outcome.stdout.split("with room")
    assert "status 1" in full
    assert "error: no space is left to write run/checkpoints/step_000002" in outcome.stderr
    assert "Free some space" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    files = full.split()
    assert "run/metrics.jsonl" in files
    assert "run/evaluations/step_000000.json" in files
    assert "run/checkpoints/step_000001/lora" in files
    assert not [name for name in files if "step_000002" in name or ".partial-" in name]
    assert "the first checkpoint is whole" in full

    assert "status 0" in roomy
    assert "run/checkpoints/step_000002/manifest.json" in roomy
    assert "run/lora" in roomy
    steps = [line for line in roomy.splitlines() if line.startswith('{"step"')]
    assert steps[0] == '{"step": 0'
    assert steps[-1] == '{"step": 2'
    assert steps == sorted(steps)
