"""The supervised loop: exact resume, checkpoints, moving average, and what stops it."""

import logging
import os
import signal

import pytest
import torch
from torch import nn

from vggrpo.config import LoopSettings
from vggrpo.config.pretrain import PretrainSettings
from vggrpo.io import RunFolder, load_tensors, make_generator, read_records, verify_manifest
from vggrpo.training.average import WeightAverage
from vggrpo.training.interrupt import Stopped
from vggrpo.training.loop import Job, require_finite, run_job
from vggrpo.training.muon import muon_and_adamw

STEPS = 9


class Regression(Job):
    """A small network fits a random linear map; batches are drawn by step."""

    name = "fit"

    def __init__(self, settings, stop_at=None, signal_at=None, poison_at=None):
        self.settings, self.stop_at, self.signal_at, self.poison_at = settings, stop_at, signal_at, poison_at
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))
        self.truth = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
        self.evaluated = []

    def modules(self):
        return {"network": self.network}

    def optimizers(self):
        return muon_and_adamw(self.network, 0.02, self.settings)

    def loss(self, step):
        if step == self.stop_at:
            raise KeyboardInterrupt
        if step == self.signal_at:
            os.kill(os.getpid(), signal.SIGINT)
        inputs = torch.randn(16, 6, generator=make_generator("regression", step))
        loss = (self.network(inputs) - inputs @ self.truth).square().mean()
        return loss * (float("nan") if step == self.poison_at else 1.0), {"fit/step": float(step)}

    def evaluate(self, step):
        self.evaluated.append(step)
        return {"fit/weight": self.network[0].weight.norm().item(), "fit/missing": None}


def settings(**changes):
    values = {
        "steps": STEPS,
        "batch_size": 16,
        "lr": 0.01,
        "warmup_steps": 2,
        "ema_decay": 0.9,
        "log_every": 2,
    }
    return LoopSettings(**(values | {"evaluate_every": 4, "checkpoint_every": 3} | changes))


def run_folder(path, loop, resume=False):
    return RunFolder.start(path, PretrainSettings(output=path, loop=loop, resume=resume), resume)


def run(path, loop, resume=False, **job):
    folder, made = run_folder(path, loop, resume), Regression(loop, **job)
    run_job(made, folder, loop)
    return made


def without_times(records):
    return [{k: v for k, v in record.items() if not k.startswith("time/")} for record in records]


def checkpoint_tensors(folder):
    path = folder.latest_checkpoint().path
    return {file.name: load_tensors(file) for file in path.glob("*.safetensors")}


def assert_same_run(first, second):
    """Weights, optimizers, moving average and metrics, bit for bit."""
    ours, theirs = checkpoint_tensors(first), checkpoint_tensors(second)
    assert set(ours) == {f"{n}.safetensors" for n in ("network", "optimizer_0", "optimizer_1", "average")}
    assert ours.keys() == theirs.keys()
    for name, tensors in ours.items():
        assert tensors.keys() == theirs[name].keys()
        assert all(torch.equal(tensor, theirs[name][key]) for key, tensor in tensors.items())
    assert without_times(first.read_metrics()) == without_times(second.read_metrics())


@pytest.fixture
def straight(tmp_path):
    """A run that was never interrupted."""
    loop = settings()
    job = run(tmp_path / "straight", loop)
    return job, run_folder(tmp_path / "straight", loop, resume=True)


@pytest.mark.parametrize("stop_at", [1, 4, 8])
def test_killed_and_resumed_is_the_run_that_was_not(tmp_path, straight, stop_at):
    loop, path = settings(), tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        run(path, loop, stop_at=stop_at)
    resumed = run(path, loop, resume=True)
    assert_same_run(run_folder(path, loop, resume=True), straight[1])
    assert torch.equal(resumed.network[0].weight, straight[0].network[0].weight)


def test_a_signal_saves_after_its_step_and_resume_continues(tmp_path, straight):
    loop, path = settings(), tmp_path / "signalled"
    with pytest.raises(KeyboardInterrupt):
        run(path, loop, signal_at=4)
    folder = run_folder(path, loop, resume=True)
    assert folder.latest_checkpoint().step == 5
    verify_manifest(folder.latest_checkpoint().path)
    run(path, loop, resume=True)
    assert_same_run(folder, straight[1])


class SignalsWhenRead(int):
    """A number of steps; the first time that a step is divided by it, a signal comes."""

    came = False

    def __rmod__(self, step):
        if not self.came:
            self.came = True
            os.kill(os.getpid(), signal.SIGTERM)
        return step % int(self)


def test_a_signal_after_a_step_has_decided_whether_to_save_ends_the_next_one_with_a_checkpoint(tmp_path):
    loop, path = settings(checkpoint_every=1000), tmp_path / "signalled"
    folder, job = run_folder(path, loop), Regression(loop)
    with pytest.raises(Stopped):
        run_job(job, folder, loop.model_copy(update={"checkpoint_every": SignalsWhenRead(1000)}))
    assert folder.latest_checkpoint().step == 2


def test_resuming_a_finished_run_changes_nothing(tmp_path, straight):
    job, folder = straight
    before, records = checkpoint_tensors(folder), folder.read_metrics()
    again = run(folder.path, settings(), resume=True)
    assert folder.read_metrics() == records
    assert all(
        torch.equal(t, checkpoint_tensors(folder)[f][k]) for f, ts in before.items() for k, t in ts.items()
    )
    assert torch.equal(again.network[2].bias, job.network[2].bias)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, straight, caplog):
    _, folder = straight
    newest = folder.latest_checkpoint().path
    weights = newest / "network.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    records = without_times(folder.read_metrics())
    with caplog.at_level(logging.WARNING):
        run(folder.path, settings(), resume=True)
    assert "network.safetensors" in caplog.text
    assert "continuing from step 6" in caplog.text
    assert without_times(folder.read_metrics()) == records


def test_when_it_logs_evaluates_and_saves(straight):
    job, folder = straight
    records = folder.read_metrics()
    assert [r["step"] for r in records if "loss" in r] == [2, 4, 6, 8, 9]
    assert [r["step"] for r in records if "fit/weight" in r] == job.evaluated == [4, 8, 9]
    assert [r["fit/step"] for r in records if "loss" in r] == [1, 3, 5, 7, 8]
    assert all(r["fit/missing"] is None for r in records if "fit/weight" in r)
    assert [checkpoint.name for checkpoint in sorted(folder.checkpoints.iterdir())] == [
        "step_000006",
        "step_000009",
    ]


def test_the_result_and_the_evaluations_are_of_the_moving_average(straight):
    job, folder = straight
    saved = checkpoint_tensors(folder)
    assert torch.equal(job.network[0].weight, saved["average.safetensors"]["network.0.weight"])
    assert not torch.equal(job.network[0].weight, saved["network.safetensors"]["0.weight"])
    assert folder.read_metrics()[-1]["fit/weight"] == job.network[0].weight.norm().item()


def test_without_a_moving_average_the_result_is_the_last_step(tmp_path):
    loop = settings(ema_decay=0.0)
    job = run(tmp_path / "plain", loop)
    saved = checkpoint_tensors(run_folder(tmp_path / "plain", loop, resume=True))
    assert "average.safetensors" not in saved
    assert torch.equal(job.network[0].weight, saved["network.safetensors"]["0.weight"])


def test_the_average_is_the_recursion_with_a_warmed_up_decay():
    module = nn.Linear(1, 1, bias=False)
    average = WeightAverage(dict(module.named_parameters()), decay=0.5)
    expected = module.weight.item()
    for step in range(12):
        with torch.no_grad():
            module.weight.fill_(float(step))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.tensors["weight"].item() == pytest.approx(expected, rel=1e-5)
    with average.applied():
        assert module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert module.weight.item() == 11.0


def test_a_loaded_average_stays_where_it_is():
    """A checkpoint is read on the CPU, whatever the device of the training."""
    module = nn.Linear(2, 1, bias=False)
    average = WeightAverage(dict(module.named_parameters()), decay=0.5)
    tensor = average.tensors["weight"]
    average.load({"weight": torch.tensor([[3.0, 4.0]], dtype=torch.float64)})
    assert average.tensors["weight"] is tensor
    assert tensor.tolist() == [[3.0, 4.0]]


def test_an_average_that_is_exchanged_with_the_weights_stays_where_it_is():
    """The weights may be moved to the CPU and back while the average is in their place."""
    module = nn.Linear(2, 1, bias=False)
    average = WeightAverage(dict(module.named_parameters()), decay=0.5)
    tensor, before = average.tensors["weight"], module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    with average.applied():
        assert torch.equal(module.weight, before)
        assert torch.equal(tensor, before + 1.0)
    assert average.tensors["weight"] is tensor
    assert torch.equal(tensor, before)
    assert torch.equal(module.weight, before + 1.0)


def test_weights_on_another_device_are_averaged_where_the_average_is():
    module = nn.Linear(2, 1, bias=False)
    average = WeightAverage(dict(module.named_parameters()), decay=0.5)
    average.tensors["weight"] = average.tensors["weight"].to("meta")
    average.update(0)
    assert average.tensors["weight"].device.type == "meta"
    assert module.weight.device.type == "cpu"


def test_a_run_may_get_an_average_later(tmp_path):
    without, path = settings(ema_decay=0.0, steps=6), tmp_path / "run"
    plain = run(path, without)
    start = {name: parameter.detach().clone() for name, parameter in plain.network.named_parameters()}
    loop = settings(ema_decay=0.9, steps=7)
    changes = ("loop.ema_decay", "loop.steps")
    changed = PretrainSettings(output=path, loop=loop, resume=True, allow_changes=changes)
    job = Regression(loop)
    run_job(job, RunFolder.open(path, changed), loop)
    saved = checkpoint_tensors(run_folder(path, loop, resume=True))
    for name, value in start.items():
        decay = min(0.9, 7 / 16)
        expected = decay * value + (1 - decay) * saved["network.safetensors"][name]
        torch.testing.assert_close(saved["average.safetensors"][f"network.{name}"], expected)


def test_training_reduces_the_loss(tmp_path):
    loop = settings(steps=150, lr=0.03, checkpoint_every=1000, evaluate_every=1000, log_every=1)
    run(tmp_path / "long", loop)
    losses = [
        r["loss"] for r in run_folder(tmp_path / "long", loop, resume=True).read_metrics() if "loss" in r
    ]
    assert losses[-1] < 0.5 * losses[0]


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path):
    loop, path = settings(ema_decay=0.0), tmp_path / "poisoned"
    folder, job = run_folder(path, loop), Regression(loop, poison_at=3)
    with pytest.raises(
        FloatingPointError, match="loss is not finite at step 3; the weights were not updated"
    ):
        run_job(job, folder, loop)
    saved = checkpoint_tensors(folder)["network.safetensors"]
    assert folder.latest_checkpoint().step == 3
    assert all(torch.equal(parameter, saved[name]) for name, parameter in job.network.named_parameters())


def test_a_loss_in_parts_adds_up(tmp_path):
    class InTwoParts(Regression):
        def losses(self, step):
            loss, figures = self.loss(step)
            yield 0.25 * loss, {name: 0.25 * value for name, value in figures.items()}
            # The first part's backward pass is done: its graph is gone, and a part has its own.
            loss, figures = self.loss(step)
            yield 0.75 * loss, {name: 0.75 * value for name, value in figures.items()}

    loop = settings(log_every=1)
    folders = [run_folder(tmp_path / name, loop) for name in ("whole", "parts")]
    for folder, job in zip(folders, (Regression(loop), InTwoParts(loop)), strict=True):
        run_job(job, folder, loop)
    whole, parts = (checkpoint_tensors(folder)["network.safetensors"] for folder in folders)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-4, atol=1e-5)
    for name in ("loss", "grad_norm", "fit/step"):
        one, other = (
            [record[name] for record in read_records(folder.path / "metrics.jsonl") if name in record]
            for folder in folders
        )
        assert len(one) == STEPS
        assert other == pytest.approx(one, rel=1e-3)


def test_a_long_gradient_is_clipped_to_grad_clip(tmp_path):
    loop = settings(steps=1, grad_clip=1e-3)
    job = run(tmp_path / "clipped", loop)
    norm = torch.stack([p.grad.norm() for p in job.network.parameters()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3)
    assert run_folder(tmp_path / "clipped", loop, resume=True).read_metrics()[0]["grad_norm"] > 0.1


def test_require_finite_names_the_tensor():
    require_finite(0, {"a": torch.ones(2)})
    with pytest.raises(FloatingPointError, match="gradient norm is not finite at step 7"):
        require_finite(7, {"loss": torch.ones(()), "gradient norm": torch.tensor(torch.inf)})
