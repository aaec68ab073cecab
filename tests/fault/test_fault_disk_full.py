"""The disk is full at a checkpoint: a sentence, and everything older is whole."""

import subprocess
import sys

import pytest

ON_A_SMALL_DISK = """
mount -t tmpfs -o size=9m tmpfs "$1" || exit 99
cd "$1"; shift
"$@"; status=$?
find run | sort
exit $status
"""
"""A disk of its own, in a namespace of its own, that vanishes with the process."""


def in_namespace(*command):
    words = ["unshare", "--map-root-user", "--mount", *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=500)


@pytest.fixture
def small_disk(tmp_path):
    """Runs a command with a small file system as its working folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        possible = in_namespace("mount", "-t", "tmpfs", "tmpfs", folder).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("this system lets nobody mount a file system in a namespace (unshare)")
    return lambda *command: in_namespace("sh", "-c", ON_A_SMALL_DISK, "sh", folder, *command)


def test_train(small_disk, train):
    """LoRA of rank 32 and its optimizer need some 15 MB; metrics and the first evaluation fit."""
    command = [sys.executable, "-m", "vggrpo", *train, "--lora-rank", 32, "--output", "run"]
    outcome = small_disk(*command)
    assert outcome.returncode == 1, outcome.stderr
    assert "error: no space is left to write run/checkpoints/step_000001" in outcome.stderr
    assert "Free some space" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    files = outcome.stdout.split()
    assert "run/metrics.jsonl" in files
    assert "run/evaluations/step_000000.json" in files
    assert not [name for name in files if "step_000001" in name or ".partial-" in name]
