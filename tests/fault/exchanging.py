"""A program for torchrun: ranks exchange numbers until one of them fails to.

Arguments: a folder, in which each rank notes its process after the first exchange, and `asleep` if the last
rank is to fall asleep then.
"""

import os
import sys
import time
from pathlib import Path

from vggrpo.training.ranks import Ranks, open_ranks

TIMEOUT_MINUTES = 0.2


def oversleep() -> None:
    time.sleep(600)


def exchange_for_ever(ranks: Ranks, folder: Path, how: str) -> None:
    ranks.any(False)
    (folder / str(ranks.rank)).write_text(str(os.getpid()))
    while True:
        ranks.any(False)
        if how == "asleep" and ranks.rank == ranks.size - 1:
            oversleep()


if __name__ == "__main__":
    with open_ranks("cpu", TIMEOUT_MINUTES) as ranks:
        exchange_for_ever(ranks, Path(sys.argv[1]), sys.argv[2])
