"""Independent random streams named by what they are for, so that random state never has to be saved."""

import hashlib
import operator
from typing import TYPE_CHECKING, SupportsIndex

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: SupportsIndex | str) -> int:
    """A seed in [0, 2**63) that depends on every part, its type and its place.

    `derive_seed(run_seed, "rollout", iteration, prompt_id, k)` gives each sample its own stream, the same in
    every process and after every resume. Integers of numpy count as integers; 1 and "1" are different parts.

    Raises:
        TypeError: if a part is neither an integer nor a string.
        ValueError: if there is no part.
    """
    if not parts:
        raise ValueError("derive_seed needs at least one part that names the stream")
    digest = hashlib.sha256()
    for position, part in enumerate(parts):
        if isinstance(part, str):
            tag, text = b"s", part.encode()
        elif isinstance(part, SupportsIndex) and not isinstance(part, bool):
            tag, text = b"i", str(operator.index(part)).encode()
        else:
            raise TypeError(f"part {position} of a seed is {part!r}; expected an int or a str")
        digest.update(tag + len(text).to_bytes(8, "big") + text)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def make_generator(*parts: SupportsIndex | str, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """A torch generator on `device`, seeded by `derive_seed(*parts)`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(*parts))
