"""Signals and SIGKILL in every phase of an iteration: what is finished is kept, and the run is the same."""

import logging
import multiprocessing
import signal
import socket

import pytest
import torch
from faulty import (
    SETTINGS,
    Signals,
    Velocities,
    assert_same_run,
    same,
    sends,
    stopped_rank,
    train_until_killed,
    weights_of,
)

from tiny_trainer import tiny_trainer
from vggrpo.io import verify_manifest
from vggrpo.training.interrupt import Stopped

ROLLOUT_PASSES = 12
"""Of an iteration: two groups, two batches each, three steps."""


def pending_files(run):
    return sorted(run.path.glob("pending_rank_*/group_*/*.safetensors"))


@pytest.fixture(scope="module")
def straight(tiny_pipeline, tmp_path_factory):
    """The run that nothing has interrupted."""
    trainer = tiny_trainer(tiny_pipeline, tmp_path_factory.mktemp("straight") / "run", **SETTINGS)
    trainer.train(until=3)
    assert not list(trainer.run.path.glob("pending*"))
    return trainer


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_each_signal_in_a_rollout(make_trainer, signum):
    trainer = make_trainer(**SETTINGS)
    passes = Velocities(trainer, 5, sends(signum))
    with pytest.raises(Stopped):
        trainer.train(until=3)
    assert passes.count == 5
    verify_manifest(trainer.run.latest_checkpoint().path)


# By forward passes of the iteration (12 of the rollout, then 8 of each update), or by batches scored.
@pytest.mark.parametrize(
    ("phase", "at", "kept"), [("rollout", 8, 2), ("score", 3, 4), ("update", 15, 4), ("second update", 23, 4)]
)
def test_stopped_in_the_second_iteration(make_trainer, straight, phase, at, kept):
    """The state is that after the first iteration; at most the pass of the reference policy follows."""
    trainer = make_trainer(name="stopped", **SETTINGS)
    trainer.train(until=1)
    before = weights_of(trainer)
    reward = trainer.rewards["camera_motion"]
    passes = Velocities(trainer, -1 if phase == "score" else at, sends(signal.SIGTERM))
    if phase == "score":
        trainer.rewards = {"camera_motion": Signals(at)}
    with pytest.raises(Stopped):
        trainer.train(until=3)
    trainer.rewards = {"camera_motion": reward}
    assert passes.count <= (ROLLOUT_PASSES if phase == "score" else at + 1)
    checkpoint = trainer.run.latest_checkpoint()
    assert checkpoint.step == trainer.iteration == 1
    verify_manifest(checkpoint.path)
    assert same(weights_of(trainer), before)
    assert len(pending_files(trainer.run)) == kept

    resumed = make_trainer(name="stopped", resume=True, **SETTINGS)
    resumed.resume()
    passes = Velocities(resumed)
    for slot, place in enumerate(resumed.prompts_of_iteration()):
        resumed.rollout(place, slot)
    assert passes.count == ROLLOUT_PASSES - 3 * kept
    resumed.train(until=3)
    assert_same_run(resumed, straight)
    assert not list(resumed.run.path.glob("pending*"))


def test_killed_while_scoring(make_trainer, straight, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=train_until_killed, args=(tmp_path / "killed",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL

    pipeline = str(tmp_path / "killed" / "pipeline")
    resumed = make_trainer(
        name="killed/run", resume=True, base_model=pipeline, trajectory_storage="disk", **SETTINGS
    )
    resumed.resume()
    assert resumed.iteration == 1
    assert len(pending_files(resumed.run)) == 4
    passes = Velocities(resumed)
    resumed.train(until=2)
    assert passes.count == 16, "the rollouts are those of the killed process"
    resumed.train(until=3)
    assert_same_run(resumed, straight)


@pytest.mark.parametrize("every", [1, 2])
def test_rollouts_stay_until_the_checkpoint_of_their_iteration_is_saved(
    make_trainer, straight, monkeypatch, every
):
    settings = SETTINGS | {"checkpoint_every": every}
    trainer = make_trainer(name="unsaved", **settings)
    trainer.train(until=1)
    assert not pending_files(trainer.run)

    def fails(*_, **__):
        raise OSError("the machine is gone")

    monkeypatch.setattr(trainer.run, "save_checkpoint", fails)
    with pytest.raises(OSError, match="the machine is gone"):
        trainer.train(until=3)
    assert len(pending_files(trainer.run)) == 4
    resumed = make_trainer(name="unsaved", resume=True, **settings)
    resumed.resume()
    assert resumed.iteration == 1
    passes = Velocities(resumed)
    resumed.train(until=2)
    assert passes.count == 16, "nothing is drawn again"
    assert not pending_files(resumed.run)
    resumed.train(until=3)
    assert_same_run(resumed, straight)


@pytest.fixture
def scored(make_trainer):
    """A run that was stopped when its first rollouts were complete."""
    trainer = make_trainer(Signals(1), "scored", **SETTINGS)
    with pytest.raises(Stopped):
        trainer.train(until=3)
    assert len(pending_files(trainer.run)) == 4
    return trainer


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_damaged_rollout_is_drawn_again(make_trainer, straight, scored, caplog, damage):
    damage(pending_files(scored.run)[1])
    resumed = make_trainer(name="scored", resume=True, **SETTINGS)
    resumed.resume()
    passes = Velocities(resumed)
    with caplog.at_level(logging.WARNING):
        resumed.train(until=1)
    assert passes.count == 3 + 16
    assert "group_0/rows_00002.safetensors is damaged" in caplog.text
    assert "made again" in caplog.text
    resumed.train(until=3)
    assert_same_run(resumed, straight)


@pytest.mark.parametrize("change", ["weights", "prompt", "settings", "threads"])
def test_rollouts_of_anything_else_are_not_taken(make_trainer, scored, change):
    changes = {"allow_changes": ("noise_scale",), "noise_scale": 0.5} if change == "settings" else {}
    resumed = make_trainer(name="scored", resume=True, **SETTINGS, **changes)
    resumed.resume()
    threads = torch.get_num_threads()
    with torch.no_grad():
        if change == "weights":
            resumed.parameters[-1].view(-1)[0] += 1e-6
        elif change == "prompt":
            resumed.prompt_embeds[resumed.prompts_of_iteration()[0]] += 1e-6
        elif change == "threads":
            torch.set_num_threads(threads + 1)
    passes = Velocities(resumed)
    try:
        resumed.rollout(resumed.prompts_of_iteration()[0], 0)
    finally:
        torch.set_num_threads(threads)
    assert passes.count == 6


def test_rollouts_of_another_number_of_processes_go(make_trainer, scored):
    folder = scored.pending
    folder.rename(folder.with_name("pending_rank_1_of_2"))
    make_trainer(name="scored", resume=True, **SETTINGS).resume()
    assert not list(scored.run.path.glob("pending*"))


def test_rollouts_need_not_be_kept(make_trainer, straight):
    settings = SETTINGS | {"keep_rollouts": False}
    trainer = make_trainer(Signals(3), "unkept", **settings)
    with pytest.raises(Stopped):
        trainer.train(until=3)
    assert not pending_files(trainer.run)
    resumed = make_trainer(name="unkept", resume=True, **settings)
    resumed.resume()
    resumed.train(until=3)
    assert_same_run(resumed, straight)


def test_a_signal_to_one_of_two_processes_stops_both(tiny_pipeline, tmp_path):
    (tmp_path / "pipeline").symlink_to(tiny_pipeline)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(stopped_rank, (2, port, tmp_path), nprocs=2)
    # The one stops in its batch, the other at the end of the phase.
    assert [(tmp_path / f"stopped-{rank}").read_text() for rank in (0, 1)] == ["6", "4"]
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step_000000"]
    verify_manifest(checkpoints[0])
    kept = {path.name: len(list(path.rglob("*.safetensors"))) for path in (tmp_path / "run").glob("pending*")}
    assert kept == {"pending_rank_0_of_2": 2, "pending_rank_1_of_2": 1}
