"""The order in which a run walks through its training samples."""

import torch

from vggrpo.io import make_generator


def shuffled_places(count: int, start: int, size: int, *stream: int | str) -> list[int]:
    """Places `start` to `start + size` of an endless sequence of permutations of 0 .. count - 1.

    A function of its arguments alone, so a resumed run goes on where it was. `stream` names the sequence.
    """
    places = range(start, start + size)
    orders = {
        epoch: torch.randperm(count, generator=make_generator(*stream, epoch))
        for epoch in {place // count for place in places}
    }
    return [int(orders[place // count][place % count]) for place in places]
