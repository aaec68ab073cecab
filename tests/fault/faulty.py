"""Faults that are planted in a tiny trainer: signals and values that are not finite, at chosen moments."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from formula_lgm import StandsRight
from tiny_pipeline import save_tiny_pipeline
from tiny_trainer import tiny_trainer
from vggrpo.io import load_tensors
from vggrpo.training.interrupt import Stopped
from vggrpo.training.ranks import Ranks
from vggrpo.training.trainer import VGGRPOTrainer

SETTINGS = {"group_size": 4, "rollout_batch": 2, "updates_per_rollout": 2, "checkpoint_every": 100}
"""Two groups of four, drawn two at a time in two steps each: 12 forward passes of rollout an iteration."""


class Signals(StandsRight):
    """Sends this process a signal when it has scored a number of batches."""

    def __init__(self, after: int, signum: int = signal.SIGTERM) -> None:
        self.after, self.signum = after, signum

    def score(self, scene):
        self.after -= 1
        if self.after == 0:
            os.kill(os.getpid(), self.signum)
        return super().score(scene)


class Velocities:
    """Counts a trainer's forward passes, and may tamper with one."""

    def __init__(
        self, trainer: VGGRPOTrainer, at: int = -1, tamper: Callable[[Tensor], None] | None = None
    ) -> None:
        self.count, self._velocity = 0, trainer.policy.velocity

        def velocity(*arguments, **options):
            self.count += 1
            result = self._velocity(*arguments, **options)
            if self.count == at and tamper is not None:
                tamper(result)
            return result

        trainer.policy.velocity = velocity


def sends(signum: int) -> Callable[[Tensor], None]:
    return lambda velocity: os.kill(os.getpid(), signum)


def breaks(row: int, value: float = torch.nan) -> Callable[[Tensor], None]:
    """Makes one number of one sample of the batch not finite."""

    def tamper(velocity: Tensor) -> None:
        with torch.no_grad():
            velocity[row, 0, 0, 1, 1] = value

    return tamper


def weights_of(trainer: VGGRPOTrainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.policy.trainable_parameters().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def assert_same_run(first: VGGRPOTrainer, second: VGGRPOTrainer) -> None:
    """Weights, optimizer and metrics, bit for bit."""
    assert same(weights_of(first), weights_of(second))
    for file in ("policy.safetensors", "optimizer.safetensors"):
        folders = [trainer.run.checkpoints / f"step_{trainer.iteration:06d}" for trainer in (first, second)]
        assert same(*(load_tensors(folder / file) for folder in folders))
    records = [
        [{k: v for k, v in record.items() if not k.startswith("time/")} for record in t.run.read_metrics()]
        for t in (first, second)
    ]
    assert records[0] == records[1]


def train_until_killed(folder: Path) -> None:
    """In a process of its own: is killed while it scores the second iteration."""
    pipeline = save_tiny_pipeline(folder / "pipeline")
    # Each iteration scores four batches of two.
    reward = Signals(6, signal.SIGKILL)
    settings = SETTINGS | {"checkpoint_every": 1, "trajectory_storage": "disk"}
    tiny_trainer(pipeline, folder / "run", reward, **settings).train(until=3)


def stopped_rank(rank: int, size: int, port: int, folder: Path) -> None:
    """One of several processes of a run, of which the last gets a signal in its second batch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    trainer = tiny_trainer(folder / "pipeline", folder / "run", ranks=Ranks(rank, size), **SETTINGS)
    passes = Velocities(trainer, 4 if rank == size - 1 else -1, sends(signal.SIGUSR1))
    try:
        trainer.train(until=3)
    except Stopped:
        (folder / f"stopped-{rank}").write_text(str(passes.count))
    dist.destroy_process_group()
