"""`torchrun` of `vggrpo train`: two processes make the run that one makes."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from conftest import TRAIN, Pipeline
from vggrpo.evaluation import EvaluationRecords
from vggrpo.training.align import records_file


def torchrun(processes: int, *words: object) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, f"--nproc-per-node={processes}", "-m", "vggrpo", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)


@pytest.fixture(scope="module")
def flags(pipeline: Pipeline) -> tuple[object, ...]:
    lgm = pipeline.folder / "lgm" / "model"
    return ("--lgm-path", lgm, *TRAIN, "--num-evaluation-prompts", "2", "--precision", "float32")


def test_two_processes_make_the_run_of_one(pipeline: Pipeline, flags: tuple[object, ...]) -> None:
    one, two = pipeline.folder / "one-process", pipeline.folder / "two-processes"
    for processes, output in ((1, one), (2, two)):
        done = torchrun(processes, "train", *flags, "--output", output)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("gate of the latent geometry model") == 1
    assert len((two / "metrics.jsonl").read_text().splitlines()) == len(
        (one / "metrics.jsonl").read_text().splitlines()
    )
    assert not list((two / "evaluations").glob("*.part*"))
    before = [EvaluationRecords.load(records_file(run, 0)) for run in (one, two)]
    assert before[0].keys == before[1].keys
    for name in ("lgm/reprojection", "brightness"):
        torch.testing.assert_close(
            torch.tensor(before[0].values(name)), torch.tensor(before[1].values(name)), rtol=1e-3, atol=1e-4
        )
    weights = [load_file(run / "lora" / "pytorch_lora_weights.safetensors") for run in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    # Three iterations at 1e-3 with AdamW, which makes full-size steps of the smallest gradients: most agree.
    moved = torch.cat([(weights[0][name] - weights[1][name]).flatten().abs() for name in weights[0]])
    assert moved.median() < 1e-4

    sharing = pipeline.folder / "two-that-share-the-weights"
    done = torchrun(2, "train", *flags, "--parallel", "fsdp", "--output", sharing)
    assert done.returncode == 0, done.stderr
    weights_of_sharers = load_file(sharing / "lora" / "pytorch_lora_weights.safetensors")
    assert all(torch.equal(weights_of_sharers[name], weight) for name, weight in weights[1].items())


def test_wrong_settings_end_all_processes_with_one_reason(
    pipeline: Pipeline, flags: tuple[object, ...]
) -> None:
    output = pipeline.folder / "too-many"
    done = torchrun(2, "train", *flags, "--num-evaluation-prompts", "1", "--output", output)
    assert done.returncode != 0
    assert "2 processes share 1 held-out prompts" in done.stderr
    assert not output.exists()


def test_other_commands_are_one_process(pipeline: Pipeline) -> None:
    done = torchrun(2, "find-layer", "--output", pipeline.folder / "never")
    assert done.returncode != 0
    assert "this command is one process; start it without torchrun" in done.stderr
