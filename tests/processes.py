"""Work in several processes that share a run, without torchrun."""

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from vggrpo.training.ranks import Ranks

# The processes are copies of one that has imported what takes seconds.
multiprocessing.set_forkserver_preload(
    ["vggrpo.backbones.wan", "vggrpo.training.trainer", "torch.distributed.fsdp"]
)


def free_port() -> int:
    """A port that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _enter(
    rank: int, size: int, port: int, work: Callable[..., Any], arguments: tuple[Any, ...], out: Path
) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    torch.save(work(Ranks(rank, size), *arguments), out / f"{rank}.pt")
    dist.destroy_process_group()


def in_ranks(size: int, work: Callable[..., Any], folder: Path, *arguments: object) -> list[Any]:
    """What `work(ranks, *arguments)` returns in each of `size` processes."""
    folder.mkdir()
    arguments_ = (size, free_port(), work, arguments, folder)
    mp.start_processes(_enter, arguments_, nprocs=size, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]
