import hashlib

import numpy as np
import pytest
import torch

from vggrpo.io import derive_seed, make_generator


def test_seed_is_the_documented_hash() -> None:
    digest = hashlib.sha256()
    for tag, text in ((b"i", b"7"), (b"s", b"rollout"), (b"i", b"-3")):
        digest.update(tag + len(text).to_bytes(8, "big") + text)
    assert derive_seed(7, "rollout", -3) == int(digest.hexdigest()[:16], 16) >> 1


def test_seeds_do_not_change_between_versions() -> None:
    assert derive_seed("world", "train", 0) == 7314550287591716122


def test_every_part_its_type_and_its_place_matter() -> None:
    streams = [
        (1,),
        ("1",),
        (1, 1),
        (11,),
        ("a", "b"),
        ("b", "a"),
        ("ab",),
        ("a", "b", ""),
        ("", "a", "b"),
        (-1,),
        (0,),
    ]
    assert len({derive_seed(*parts) for parts in streams}) == len(streams)


def test_seeds_fill_63_bits() -> None:
    seeds = [derive_seed("spread", index) for index in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    ones = np.array([[seed >> bit & 1 for bit in range(63)] for seed in seeds]).mean(axis=0)
    assert np.all(np.abs(ones - 0.5) < 5 * 0.5 / np.sqrt(len(seeds)))


def test_numpy_integers_are_integers() -> None:
    assert derive_seed(np.int64(5), "a") == derive_seed(5, "a")


def test_generators_of_one_stream_agree_and_others_differ() -> None:
    first, again, other = (torch.randn(4, generator=make_generator("x", k)) for k in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("part", [1.0, None, True, b"x"])
def test_other_types_are_refused(part: object) -> None:
    with pytest.raises(TypeError, match=r"part 1 of a seed is .*expected an int or a str"):
        derive_seed("x", part)  # type: ignore[arg-type]


def test_a_stream_needs_a_name() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        derive_seed()
