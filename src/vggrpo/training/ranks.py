"""The processes that share a run, started by torchrun; without it there is one.

Every rank draws its share of each group's members. Rewards are exchanged before they are normalised,
gradients before they are used, so a run computes the same on any number of ranks, up to the order of float32
sums. All randomness is a function of seeds and counters, never of the rank.
"""

import faulthandler
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor

from vggrpo.config import ConfigError, TrainSettings
from vggrpo.io import tensors_sha256
from vggrpo.training.rendezvous import meet
from vggrpo.training.runtime import choose_device

T = TypeVar("T")
DUMP_AT = 0.9
"""Part of the time limit after which a rank shows where it is: before the exchange fails."""


@dataclass(frozen=True)
class Ranks:
    """This process among all of a run. With `size` 1 nothing is ever sent."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    """Where tensors are sent from: that of the models."""
    patience: float = 0.0
    """Seconds that a rank may keep the others waiting; 0 is for ever."""
    context: int = 1
    """Ranks, neighbours by number, that compute the same samples together, each a part of their tokens."""
    lockstep: bool = False
    """Whether a forward pass of the denoiser is an exchange, so that all ranks must make the same ones."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files and messages."""
        return self.rank == 0

    @property
    def console(self) -> Console | None:
        """Where progress is shown: the usual place on the first rank, nowhere on the others."""
        return None if self.is_first else Console(quiet=True)

    @property
    def share(self) -> int:
        """Number of this rank's share of the samples."""
        return self.rank // self.context

    @property
    def num_shares(self) -> int:
        """Into how many shares the samples are divided."""
        return self.size // self.context

    @property
    def speaks(self) -> bool:
        """Whether this rank reports its share's results, which several may have."""
        return self.rank % self.context == 0

    def members(self, group_size: int, number: int) -> list[int]:
        """Which members of the run's group number `number` are this rank's, in ascending order.

        The first member moves on from group to group, so that what is left over when a group does not divide
        evenly falls to another rank each time.
        """
        return [k for k in range(group_size) if (k + number) % self.num_shares == self.share]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the ranks, in one exchange per type."""
        if self.size == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.flatten() for tensor in same]).to(self.device)
            with self._watched():
                dist.all_reduce(flat)
            for tensor, total in zip(same, flat.split([t.numel() for t in same]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def sum_figures(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Sums by name over the shares of the samples; a rank may lack a name."""
        total: dict[str, float] = {}
        for part in self.gather_shares(dict(figures)):
            for name, value in part.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def max_figures(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The largest by name over the shares of the samples; a rank may lack a name."""
        largest: dict[str, float] = {}
        for part in self.gather_shares(dict(figures)):
            for name, value in part.items():
                largest[name] = max(largest.get(name, value), value)
        return largest

    def gather(self, value: T) -> list[T]:
        """The picklable `value` of every rank, in their order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._watched():
            dist.all_gather_object(values, value)
        return values

    def gather_shares(self, value: T) -> list[T]:
        """The picklable `value` of every share of the samples, in their order, on every rank."""
        return self.gather(value)[:: self.context]

    def of_first(self, value: T) -> T:
        """The first rank's `value`, on every rank."""
        return self.gather(value)[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return any(self.gather(flag))

    def all(self, flag: bool) -> bool:
        """Whether the flag is set on every rank."""
        return all(self.gather(flag))

    def wait(self) -> None:
        """Returns when every rank has come here."""
        if self.size > 1:
            with self._watched():
                dist.barrier()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """An exchange. A rank that is in it for long, or stays away from the next one for long, shows the
        stacks of its threads on stderr: before the exchange of those that wait fails."""
        self.watch()
        yield
        if self.device != "cpu":
            torch.cuda.synchronize()  # until here the exchange has only been ordered
        self.watch()

    def watch(self) -> None:
        """Starts the time anew after which this rank shows where it is."""
        if self.patience:
            faulthandler.dump_traceback_later(DUMP_AT * self.patience)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The block runs on the first rank, then on the others, which find there what the first has made."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def require_equal(self, what: str, tensors: Sequence[Tensor]) -> None:
        """Makes sure that tensors which must be the same on every rank are, bit for bit.

        Raises:
            RuntimeError: if they differ, naming a rank.
        """
        if self.size == 1:
            return
        digests = self.gather(tensors_sha256({str(number): tensor for number, tensor in enumerate(tensors)}))
        for rank, theirs in enumerate(digests):
            if theirs != digests[0]:
                raise RuntimeError(
                    f"{what} of rank {rank} differ from those of rank 0: the ranks do not compute the same. "
                    "Use equal hardware and library versions on all of them"
                )


def were_restarted(ranks: Ranks) -> bool:
    """Whether torchrun has started the ranks anew after a failure (`--max-restarts`).

    It counts the starts on each node by itself: those of a node that has taken a lost one's place begin at 0.
    """
    return ranks.any(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0)


def require_shares(ranks: Ranks, settings: TrainSettings) -> None:
    """Makes sure that a group's members can be shared out.

    Raises:
        ConfigError: if there are more shares than members, or batches do not come out even, as bfloat16 and
            sharded weights need.
    """
    context, shares = settings.context_parallel, ranks.size // settings.context_parallel
    if ranks.size % context:
        raise ConfigError(
            f"context_parallel is {context}, but {ranks.size} processes cannot be divided into teams of "
            f"{context}: start a multiple of it under torchrun, or lower it"
        )
    whose = "processes" if context == 1 else f"teams of {context} processes"
    if shares > settings.group_size:
        raise ConfigError(
            f"{shares} {whose} share groups of {settings.group_size} (group_size): some would have "
            f"nothing to do; start at most {settings.group_size}, or raise group_size"
        )
    share = settings.group_size // settings.updates_per_rollout
    alike = settings.precision != "bfloat16" or settings.scored_in_one_pass
    if not alike and share % (shares * settings.rollout_batch):
        raise ConfigError(
            f"an update has {share} samples of a group (group_size / updates_per_rollout) for {shares} "
            f"{whose} in batches of {settings.rollout_batch} (rollout_batch), but in bfloat16 a sample is "
            f"scored exactly as it was drawn only in the same batch: the {whose} times rollout_batch must "
            "divide them. Lower rollout_batch and update_batch, or use precision float32"
        )
    if settings.lockstep and share % shares:
        raise ConfigError(
            f"an update has {share} samples of a group (group_size / updates_per_rollout) for {shares} "
            f"{whose}, but with parallel {settings.parallel} and context_parallel {context} all must make "
            "the same forward passes: their number must divide the samples. Start fewer, or raise group_size"
        )
    held = settings.off_window_members or share
    if settings.lockstep and settings.off_window_coef and held % shares:
        raise ConfigError(
            f"off_window_members is {held} for {shares} {whose}, but with parallel {settings.parallel} and "
            f"context_parallel {context} all must make the same forward passes: raise it to a multiple of "
            f"{shares}, or leave it at 0"
        )


@contextmanager
def open_ranks(
    device: str, timeout_minutes: float, context: int = 1, lockstep: bool = False
) -> Iterator[Ranks]:
    """The ranks that torchrun has started this process among, or the single one.

    Args:
        device: the setting: "auto", "cpu", or "cuda". Each rank takes the GPU of its local number.
        timeout_minutes: how long a rank may keep the others waiting before the run ends.
        context, lockstep: of the ranks.

    Raises:
        ConfigError: if `device` names one GPU for all ranks, or no device, or there are fewer GPUs here than
            ranks.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    if device.startswith("cuda:"):
        raise ConfigError(
            f"device is {device}, but {size} processes share this run and each takes a GPU of its own; use "
            "cuda or auto"
        )
    on_gpu = choose_device(device).type == "cuda"
    own = _own_gpu() if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(own)
    timeout = timedelta(minutes=timeout_minutes)
    store, rank, size = meet(timeout)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=timeout,
        device_id=torch.device(own) if on_gpu else None,
    )
    ranks = Ranks(rank, size, own, timeout.total_seconds(), context, lockstep and size > 1)
    try:
        ranks.watch()
        yield ranks
    finally:
        faulthandler.cancel_dump_traceback_later()
        dist.destroy_process_group()


def _own_gpu() -> str:
    """The GPU of this process's local number.

    Raises:
        ConfigError: if there are fewer.
    """
    number, here = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= here:
        raise ConfigError(
            f"each process takes a GPU of its own, but process {number} of this machine (LOCAL_RANK, from 0) "
            f"finds {here} CUDA devices; start at most {here} here (--nproc-per-node), or use --device cpu"
        )
    return f"cuda:{number}"
