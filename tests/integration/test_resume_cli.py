"""Interrupted commands leave valid checkpoints, and --resume makes the run that was never interrupted."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

from commands import vggrpo, vggrpo_interrupted_when

from vggrpo.io import load_tensors, read_records, verify_manifest

INTERRUPTED = "What was finished is kept and nothing is half-written"


def without_times(run):
    records = read_records(run / "metrics.jsonl")
    return [{k: v for k, v in record.items() if not k.startswith("time/")} for record in records]


def assert_same_tensors(first, second):
    ours, theirs = load_tensors(first), load_tensors(second)
    assert ours.keys() == theirs.keys()
    assert all((tensor == theirs[name]).all() for name, tensor in ours.items())


def leftovers(folder):
    return list(folder.rglob("*.partial-*"))


def wait_for(file, process, seconds=300):
    end = time.monotonic() + seconds
    while not file.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, f"{file} did not appear"
        time.sleep(0.01)


def test_train_interrupted_in_a_process_of_its_own_continues_bit_for_bit(pipeline, tmp_path):
    run, straight = tmp_path / "run", pipeline.folder / "train"
    command = [sys.executable, "-m", "vggrpo", "train", "--output", run, *pipeline.train_flags]
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(run / "checkpoints" / "step_000001", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert INTERRUPTED in err
    assert "Traceback" not in err
    assert "--resume" in err
    assert not (run / "lora").exists()
    for checkpoint in (run / "checkpoints").iterdir():
        verify_manifest(checkpoint)

    resumed = vggrpo("train", "--output", run, "--resume")
    assert resumed.status == 0, resumed.err
    for file in ("policy.safetensors", "optimizer.safetensors", "lora/pytorch_lora_weights.safetensors"):
        final = ("checkpoints", "step_000003", file)
        assert_same_tensors(run.joinpath(*final), straight.joinpath(*final))
    assert without_times(run) == without_times(straight)
    assert json.loads((run / "evaluations" / "step_000003.json").read_text()) == json.loads(
        (straight / "evaluations" / "step_000003.json").read_text()
    )
    assert not leftovers(run)


def test_train_lgm_interrupted_continues_bit_for_bit(pipeline, tmp_path):
    run, straight = tmp_path / "run", pipeline.folder / "lgm"
    first_checkpoint = run / "checkpoints" / "step_000002"
    outcome = vggrpo_interrupted_when(first_checkpoint, "train-lgm", "--output", run, *pipeline.lgm_flags)
    assert outcome.status == 130, outcome.err
    assert INTERRUPTED in outcome.err
    assert not (run / "model").exists()
    verify_manifest(first_checkpoint)

    resumed = vggrpo("train-lgm", "--output", run, "--resume")
    assert resumed.status == 0, resumed.err
    for file in ("model.safetensors", "optimizer_0.safetensors"):
        final = ("checkpoints", "step_000005", file)
        assert_same_tensors(run.joinpath(*final), straight.joinpath(*final))
    assert_same_tensors(run / "model" / "connector.safetensors", straight / "model" / "connector.safetensors")
    assert without_times(run) == without_times(straight)
    assert json.loads((run / "quality.json").read_text()) == json.loads(
        (straight / "quality.json").read_text()
    )
    assert (run / "model" / "gate.json").read_text() == (straight / "model" / "gate.json").read_text()
    assert not leftovers(run)


def test_resuming_with_another_setting_names_it(pipeline):
    outcome = vggrpo("train", "--output", pipeline.folder / "train", "--resume", "--clip-eps", "0.5")
    assert outcome.status == 1
    assert "clip_eps: 1e-05 in the run, 0.5 now" in outcome.err


def test_resuming_a_finished_run_keeps_it(pipeline, tmp_path):
    run = pipeline.folder / "train"
    weights, records = run / "lora" / "pytorch_lora_weights.safetensors", without_times(run)
    before = shutil.copy(weights, tmp_path)
    outcome = vggrpo("train", "--output", run, "--resume")
    assert outcome.status == 0, outcome.err
    # The order of the file's metadata is random, so its bytes may differ.
    assert_same_tensors(before, weights)
    assert without_times(run) == records


def test_resuming_what_is_no_run_says_so(tmp_path, pipeline):
    outcome = vggrpo("train", "--output", tmp_path, "--resume", *pipeline.train_flags)
    assert outcome.status == 1
    assert f"{tmp_path} holds no run to resume" in outcome.err
    assert not os.listdir(tmp_path)
