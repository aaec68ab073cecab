"""Checkpoints that other projects publish: the file, and the translation of its parameter names."""

import argparse
import pickle
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor

from vggrpo.config.errors import CorruptFileError
from vggrpo.io import load_tensors, tensor_names

SHOWN_PROBLEMS = 8
"""How many wrong tensors a message names; of a wrong file all are wrong."""
UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    OSError,
    BadZipFile,
    struct.error,
    zlib.error,
)
"""What torch.load and zipfile raise on damaged files and on files of other kinds."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch file that holds them at its top or under "model".

    Of a PyTorch file only tensors and plain values are read: no code in it is run.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it cannot be read, or holds more than tensors and plain values.
        PermissionError: if the file may not be read.
    """
    return load_tensors(path) if path.suffix == ".safetensors" else _load(path, "cpu")


def checkpoint_names(path: Path) -> list[str]:
    """The names of the tensors that `read_checkpoint` reads, without reading their values.

    Raises:
        As `read_checkpoint`, of damage in names and headers alone.
    """
    return tensor_names(path) if path.suffix == ".safetensors" else list(_load(path, "meta"))


def _load(path: Path, device: str) -> dict[str, Tensor]:
    """The tensors of a PyTorch file; on the meta device they are not read."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        if device != "meta":
            _check_sums(path)
        # Training scripts store their argparse settings beside the weights; nothing else may be unpickled.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            # Of what is no checkpoint it says first that its pickle protocol is an unusual one.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location=device, weights_only=True)
    except PermissionError:
        raise
    except UNREADABLE as error:
        # torch's own words, many lines of them, advise to read the file without this protection.
        raise CorruptFileError(
            f"{path} cannot be read as a PyTorch checkpoint of plain tensors: it holds code, is damaged, or "
            "is no checkpoint; get a fresh copy"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CorruptFileError(f"{path} holds no state dict of tensors, at its top or under 'model'")
    return state


def _check_sums(path: Path) -> None:
    """Raises BadZipFile if a part of a PyTorch file does not have its checksum; torch does not look at it."""
    if is_zipfile(path):
        with ZipFile(path) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise BadZipFile(f"{damaged} in it does not have its checksum")


@dataclass(frozen=True)
class KeyMap:
    """How a project's parameters are called, as data."""

    names: Mapping[str, str]
    """Our module and parameter names to upstream's."""
    unused: tuple[str, ...]
    """Prefixes of upstream's tensors that no network here needs."""
    aliases: tuple[tuple[str, str], ...] = ()
    """Second names under which upstream saves the same tensors, and the names they stand for: prefixes, or
    parts of a name if they begin with a dot."""

    def upstream_key(self, own_key: str) -> str:
        """Upstream's name of one of our parameters."""
        if own_key in self.names:
            return self.names[own_key]
        module, _, parameter = own_key.rpartition(".")
        return f"{self.names[module]}.{parameter}"

    def canonical(self, key: str) -> str:
        """The name that stands for `key` if it is an alias, else `key` itself."""
        for alias, name in self.aliases:
            key = name + key[len(alias) :] if key.startswith(alias) else key
            if alias.startswith("."):
                key = key.replace(alias, name)
        return key

    def translate(self, upstream: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Upstream's state dict in our names. `own` is our network's state dict, for its keys and shapes.

        Raises:
            ValueError: if a tensor is missing, has another shape, is known neither as used nor as unused, or
                if two names of one tensor hold different values.
        """
        report = self.compare(upstream, own)
        if not report.fits:
            raise ValueError(report.problems)
        return {key: report.tensors[name].reshape(own[key].shape) for key, name in report.wanted.items()}

    def compare(self, upstream: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> "KeyReport":
        """Finds for each of our tensors upstream's, and for each of upstream's what becomes of it."""
        tensors: dict[str, Tensor] = {}
        unused: dict[str, dict[str, int]] = {}
        conflicting: list[tuple[str, str]] = []
        num_aliases = 0
        for key, value in upstream.items():
            name = self.canonical(key)
            num_aliases += name != key
            prefix = next((prefix for prefix in self.unused if name.startswith(prefix)), None)
            if prefix is not None:
                unused.setdefault(prefix, {})[name] = value.numel()
            elif name in tensors and not torch.equal(tensors[name], value):
                conflicting.append((name, key))
            else:
                tensors[name] = value
        wanted = {key: self.upstream_key(key) for key in own}
        used = set(wanted.values())
        return KeyReport(
            wanted=wanted,
            tensors=tensors,
            num_read=len(upstream),
            num_aliases=num_aliases,
            unused=unused,
            missing={name for name in used if name not in tensors},
            misshapen={
                name: (list(tensors[name].shape), list(own[key].shape))
                for key, name in wanted.items()
                if name in tensors and not _same_but_for_ones(tensors[name], own[key])
            },
            unknown=[name for name in tensors if name not in used],
            conflicting=conflicting,
            types={
                name: (tensors[name].dtype, own[key].dtype)
                for key, name in wanted.items()
                if name in tensors and tensors[name].dtype != own[key].dtype
            },
        )


@dataclass(frozen=True)
class KeyReport:
    """What a checkpoint holds, compared with what a network needs. Names are upstream's."""

    wanted: Mapping[str, str]
    """Our keys to the names they are found under."""
    tensors: Mapping[str, Tensor]
    """By name, the unused ones left out."""
    num_read: int
    """Tensors in the file, second names included."""
    num_aliases: int
    """How many of them are second names."""
    unused: Mapping[str, Mapping[str, int]]
    """Tensors that no network here needs: prefix to names and numbers of elements."""
    missing: Set[str]
    misshapen: Mapping[str, tuple[list[int], list[int]]]
    """Shape in the file and shape that is needed, by name."""
    unknown: Sequence[str]
    conflicting: Sequence[tuple[str, str]]
    """Names of tensors of which a second name, given beside, holds other values."""
    types: Mapping[str, tuple[torch.dtype, torch.dtype]]
    """Type in the file and type in which the network holds it, by name, where they differ."""

    @property
    def fits(self) -> bool:
        """Whether the checkpoint is the network's, with nothing unexplained."""
        return not any(self._problems())

    @property
    def num_used_elements(self) -> int:
        """Numbers in the tensors that the network takes."""
        return sum(self.tensors[name].numel() for name in self.wanted.values() if name in self.tensors)

    @property
    def problems(self) -> str:
        """What does not fit, the first few by name; empty if all does."""
        if self.num_read and len(self.missing) == len(self.wanted):
            return f"none of its {self.num_read} tensors has a name that the network needs"
        found = list(self._problems())
        rest = len(found) - SHOWN_PROBLEMS
        return "; ".join(found[:SHOWN_PROBLEMS]) + (f"; and {rest} more" if rest > 0 else "")

    def lines(self) -> list[str]:
        """The report for people: what is used, what is left aside, and what does not fit."""
        found = len(self.wanted) - len(self.missing)
        left_aside = [
            f"left aside: {prefix}* (tensors: {len(names)}, numbers: {sum(names.values()):,})"
            for prefix, names in self.unused.items()
        ]
        return [
            f"{self.num_read} tensors in the file, {self.num_aliases} of them second names of others",
            f"{found} of the network's {len(self.wanted)} tensors found, {self.num_used_elements:,} numbers",
            *left_aside,
            *self._conversions(),
            "everything fits" if self.fits else f"does not fit: {self.problems}",
        ]

    def _problems(self) -> Iterator[str]:
        for name, key in self.conflicting:
            yield f"it holds two different tensors for {name!r}, one of them as {key!r}"
        for name in self.wanted.values():
            if name in self.missing:
                yield f"{name} is missing"
            elif name in self.misshapen:
                came, expected = self.misshapen[name]
                yield f"{name} is {came} where {expected} is expected"
            elif name in self.types and not self.types[name][0].is_floating_point:
                yield f"{name} holds {_word(self.types[name][0])}, no floating-point numbers"
        for name in self.unknown:
            yield f"{name} is unknown"

    def _conversions(self) -> Iterator[str]:
        for (came, held), count in Counter(self.types.values()).items():
            if came.is_floating_point:
                yield f"{count} tensors are {_word(came)} in the file, and become {_word(held)}"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _same_but_for_ones(a: Tensor, b: Tensor) -> bool:
    """Whether two shapes differ in dimensions of size 1 only."""
    return a.squeeze().shape == b.squeeze().shape
