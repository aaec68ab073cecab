"""Where the processes that torchrun starts find each other, also after a restart."""

import time
from datetime import timedelta
from uuid import uuid4

import torch.distributed as dist

POLL_SECONDS = 0.02


def meet(timeout: timedelta) -> tuple[dist.Store, int, int]:
    """The ranks' common store, which holds nothing yet, with this process' rank and their number.

    torchrun keeps one store for all starts (`--max-restarts`), and with it the addresses of processes that
    are dead: a rank that reads its neighbour's entry before the neighbour has written it anew connects to
    nobody. The number of the start does not tell the entries apart, because torchrun counts it on each node
    by itself. So the ranks agree on a name under which this start's entries lie.

    Raises:
        TimeoutError: if a rank does not come within `timeout`.
    """
    store, rank, size = next(dist.rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    return dist.PrefixStore(agree_on_name(store, rank, size, timeout), store), rank, size


def agree_on_name(store: dist.Store, rank: int, size: int, timeout: timedelta) -> str:
    """A name that the ranks of this start have in common, and no earlier user of the store had.

    Rank 0 makes it up. Each other rank asks for it in its own words, made up too, so that no answer to a dead
    process can be taken for its own; rank 0 answers whatever it finds until all have thanked.

    Raises:
        TimeoutError: on rank 0, if a rank does not come within `timeout`.
    """
    if rank != 0:
        question = uuid4().hex
        store.set(f"question/{rank}", question)
        name = store.get(f"answer/{question}").decode()
        store.set(f"thanks/{name}/{rank}", "")
        return name
    name, deadline = uuid4().hex, time.monotonic() + timeout.total_seconds()
    waiting = set(range(1, size))
    while waiting:
        for other in sorted(waiting):
            if store.check([f"thanks/{name}/{other}"]):
                waiting.remove(other)
            elif store.check([f"question/{other}"]):
                store.set(f"answer/{store.get(f'question/{other}').decode()}", name)
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"rank {min(waiting)} of {size} has not come within {timeout}; see its messages, or raise "
                "rank_timeout"
            )
        time.sleep(POLL_SECONDS)
    return name
