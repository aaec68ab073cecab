"""Checkpoints that are damaged, incomplete, foreign or malicious: an older one is taken, whole, or none."""

import logging
import pickle
from pathlib import Path

import pytest
from faulty import same, weights_of

from vggrpo.config import CorruptFileError, RunError
from vggrpo.io import load_tensors, save_tensors, write_manifest

SETTINGS = {"checkpoint_every": 1, "keep_checkpoints": 3}


class Exploit:
    """Pickled, it creates a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return (Path.touch, (self.victim,))


@pytest.fixture
def trained(make_trainer):
    """A run with the checkpoints of iterations 1 and 2."""
    trainer = make_trainer(**SETTINGS)
    trainer.train(until=2)
    return trainer


@pytest.fixture
def resume(make_trainer):
    """The run, opened again, before and after `resume`."""

    def open_again(**changes):
        trainer = make_trainer(resume=True, **SETTINGS, **changes)
        before = weights_of(trainer)
        return trainer, before

    return open_again


def flip(folder):
    path = folder / "policy.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def truncate(folder):
    path = folder / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_a_file(folder):
    (folder / "policy.safetensors").unlink()


def without_the_manifest(folder):
    (folder / "manifest.json").unlink()


def with_a_pickle(folder):
    (folder / "policy.safetensors").write_bytes(pickle.dumps(Exploit(folder.parent / "victim")))
    write_manifest(folder)


def of_another_model(folder):
    """The optimizer's, so that the weights alone could be taken."""
    tensors = load_tensors(folder / "optimizer.safetensors")
    save_tensors(folder / "optimizer.safetensors", {f"9{name}": value for name, value in tensors.items()})
    write_manifest(folder)


def without_the_optimizer(folder):
    (folder / "optimizer.safetensors").unlink()
    write_manifest(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "the content of policy.safetensors has changed"),
        (truncate, "optimizer.safetensors has"),
        (without_a_file, "policy.safetensors is missing"),
        (without_the_manifest, "has no manifest.json"),
        (with_a_pickle, "policy.safetensors is damaged or not a safetensors file"),
        (of_another_model, "optimizer.safetensors is of another model"),
        (without_the_optimizer, "there is no tensor file"),
    ],
)
def test_the_newest(trained, resume, caplog, damage, message):
    folder = trained.run.checkpoints
    damage(folder / "step_000002")
    trainer, _ = resume()
    with caplog.at_level(logging.WARNING):
        trainer.resume()
    assert trainer.iteration == 1
    assert same(weights_of(trainer), load_tensors(folder / "step_000001" / "policy.safetensors"))
    assert message in caplog.text
    assert "continuing from step 1 instead" in caplog.text
    assert not (folder / "victim").exists()
    trainer.train(until=2)
    assert same(weights_of(trainer), weights_of(trained))


def test_all(trained, resume):
    """Nothing changes: neither the policy, nor the metrics, nor what is left of the checkpoints."""
    folders = sorted(trained.run.checkpoints.iterdir())
    flip(folders[0])
    of_another_model(folders[1])
    trainer, before = resume()
    with pytest.raises(CorruptFileError, match=r"no checkpoint of .* is intact.*optimizer.*policy.*Restore"):
        trainer.resume()
    assert same(weights_of(trainer), before)
    assert trainer.iteration == 0
    assert not trainer.optimizer.state
    assert [record["step"] for record in trainer.run.read_metrics()] == [1, 2]
    assert sorted(trained.run.checkpoints.iterdir()) == folders


def test_files_that_nobody_listed_are_never_read(trained, resume):
    newest = trained.run.checkpoints / "step_000002"
    for name in ("optimizer.pt", "policy.bin", "lora/extra.pkl"):
        (newest / name).write_bytes(pickle.dumps(Exploit(newest / "victim")))
    trainer, _ = resume()
    trainer.resume()
    assert trainer.iteration == 2
    assert same(weights_of(trainer), weights_of(trained))
    assert not (newest / "victim").exists()


def test_of_another_size_of_the_policy(trained, resume):
    trainer, before = resume(lora_rank=8, allow_changes=("lora_rank",))
    with pytest.raises(CorruptFileError, match=r"is of another model: .* has shape \(4, .*expected \(8, "):
        trainer.resume()
    assert same(weights_of(trainer), before)


def test_changed_settings(trained, make_trainer):
    config = (trained.run.path / "config.yaml").read_bytes()
    with pytest.raises(RunError, match=r"(?s)lr: 0\.01 in the run, 0\.1 now.*--allow-changes lr$"):
        make_trainer(resume=True, lr=0.1, **SETTINGS)
    with pytest.raises(RunError, match=r"noise_scale: 0\.7 in the run, 0\.9 now"):
        make_trainer(resume=True, lr=0.1, noise_scale=0.9, allow_changes=("lr",), **SETTINGS)
    assert (trained.run.path / "config.yaml").read_bytes() == config


def test_an_average_that_the_run_had_not_starts_from_the_checkpoint(trained, make_trainer):
    trainer = make_trainer(resume=True, ema_decay=0.9, allow_changes=("ema_decay",), **SETTINGS)
    trainer.resume()
    assert trainer.iteration == 2
    assert same(trainer.average.tensors, weights_of(trained))
    trainer.train(until=3)
    again = make_trainer(resume=True, ema_decay=0.9, **SETTINGS)
    again.resume()
    assert same(again.average.tensors, trainer.average.tensors)
    assert not same(again.average.tensors, weights_of(again))


def test_a_missing_average_is_damage(make_trainer, caplog):
    settings = SETTINGS | {"ema_decay": 0.9}
    trainer = make_trainer(**settings)
    trainer.train(until=2)
    (trainer.run.checkpoints / "step_000002" / "average.safetensors").unlink()
    resumed = make_trainer(resume=True, **settings)
    with caplog.at_level(logging.WARNING):
        resumed.resume()
    assert "average.safetensors is missing; continuing from step 1 instead" in caplog.text
    assert resumed.iteration == 1


def test_changed_settings_that_are_allowed(trained, make_trainer, caplog):
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(resume=True, lr=0.1, allow_changes=("lr",), **SETTINGS)
    assert "as allowed: lr: 0.01 in the run, 0.1 now" in caplog.text
    trainer.resume()
    before = weights_of(trainer)
    trainer.train(until=3)
    moved = max(float((value - before[name]).abs().max()) for name, value in weights_of(trainer).items())
    assert moved > 0.02, "AdamW moves by about the learning rate"
    again = make_trainer(resume=True, lr=0.1, **SETTINGS)
    again.resume()
    assert again.iteration == 3
