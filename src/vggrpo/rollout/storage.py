"""Where the trajectories of a group are kept: in memory, or in files that are read in parts.

A state is needed twice, when it is drawn and when its step is scored again, and only a few members at a
time. Files make the memory of a rollout independent of the number of members.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vggrpo.config.errors import CorruptFileError
from vggrpo.io import load_metadata, load_tensors, save_tensors, tensors_sha256

logger = logging.getLogger(__name__)

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Of some tensors [K, ...] by name: the shape of a row, and the type."""


@dataclass(frozen=True)
class _Shard:
    """A file with the rows [start, stop)."""

    path: Path
    start: int
    stop: int


@dataclass(frozen=True)
class StoredRows:
    """A tensor [K, ...] in safetensors files, one for each batch of rows; `rows[2:4]` reads two rows.

    Files are mapped into memory while they are read, and only what is asked for is read.
    """

    name: str
    """Of the tensor in its files."""
    row_shape: tuple[int, ...]
    dtype: torch.dtype
    first: int
    """The rows are [first, stop) of those in the files."""
    stop: int
    shards: tuple[_Shard, ...]
    """In the order of their rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, ...)."""
        return (self.stop - self.first, *self.row_shape)

    def __len__(self) -> int:
        return self.stop - self.first

    def take(self, rows: slice) -> "StoredRows":
        """Some of the rows; reads nothing."""
        first, stop, _ = rows.indices(len(self))
        return replace(self, first=self.first + first, stop=self.first + max(stop, first))

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Tensor:
        """Rows, or parts of rows along their first axis, on the CPU; the same indices as of a tensor.

        Raises:
            FileNotFoundError: if the files are gone.
        """
        rows, part = key if isinstance(key, tuple) else (key, slice(None))
        asked = self.take(rows)
        pieces = [asked._read(shard, part) for shard in self.shards if asked._overlaps(shard)]
        if not pieces:
            return torch.empty((0, *self.row_shape), dtype=self.dtype)[:, part]
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def _overlaps(self, shard: _Shard) -> bool:
        return max(self.first, shard.start) < min(self.stop, shard.stop)

    def _read(self, shard: _Shard, part: slice) -> Tensor:
        from safetensors import safe_open

        rows = slice(max(self.first, shard.start) - shard.start, min(self.stop, shard.stop) - shard.start)
        with safe_open(shard.path, framework="pt", device="cpu") as file:
            return file.get_slice(self.name)[rows, part]


Rows = Tensor | StoredRows
"""A tensor [K, ...], in memory or in files; both are read as `rows[members]` or `rows[members, steps]`."""


class Shelf:
    """Takes tensors [K, ...] a batch of rows at a time.

    Args:
        layout: of the tensors.
        num_rows: K.
        device: of tensors in memory. Those on the CPU are pinned if they come from a GPU.
        source: the device from which the rows come.
        folder: where files go, one for each batch; without one, everything stays in memory.
        in_memory: with a folder: the tensors are in memory too, and are read there.
        key: says what the rows are made from; a later shelf with the same key can `recover` them.
    """

    def __init__(
        self,
        layout: Layout,
        num_rows: int,
        device: torch.device,
        source: torch.device,
        folder: Path | None = None,
        in_memory: bool = False,
        key: str | None = None,
    ) -> None:
        self._layout, self._num_rows, self._folder, self._key = layout, num_rows, folder, key
        self._from_files = folder is not None and not in_memory
        self._device = torch.device("cpu") if self._from_files else device
        self._pinned = self._device.type == "cpu" and source.type == "cuda"
        self._whole = {} if self._from_files else self._empty(num_rows)
        self._shards: list[_Shard] = []

    def _empty(self, rows: int) -> dict[str, Tensor]:
        return {
            name: torch.empty((rows, *shape), dtype=dtype, device=self._device, pin_memory=self._pinned)
            for name, (shape, dtype) in self._layout.items()
        }

    def room(self, rows: slice) -> dict[str, Tensor]:
        """Tensors [B, ...] to be filled with a batch of rows."""
        if not self._from_files:
            return {name: tensor[rows] for name, tensor in self._whole.items()}
        return self._empty(rows.stop - rows.start)

    def recover(self, rows: slice, agree: Callable[[bool], bool] = bool) -> bool:
        """Takes a batch of rows from the file that an interrupted process has left; whether there is one.

        It must be intact, by its checksum, and of the same key; `agree` is told, and has the last word.
        """
        if self._folder is None or self._key is None:
            return False
        found = _recovered(self._file(rows), self._key, rows)
        if not agree(found is not None) or found is None:
            return False
        if self._from_files:
            self._shards.append(_Shard(self._file(rows), rows.start, rows.stop))
        for name, tensor in self._whole.items():
            tensor[rows] = found[name].to(tensor)
        return True

    def keep(self, rows: slice, filled: Mapping[str, Tensor]) -> None:
        """Keeps a batch of rows that `room` was made for; batches come in their order.

        Raises:
            DiskFullError: if the space runs out.
        """
        if self._folder is None:
            return
        proof = {} if self._key is None else {"key": self._key, "sha256": tensors_sha256(filled)}
        # Only for this run or the next start: what a power cut damages is found by its checksum.
        save_tensors(self._file(rows), filled, {"rows": [rows.start, rows.stop], **proof}, flush=False)
        if self._from_files:
            self._shards.append(_Shard(self._file(rows), rows.start, rows.stop))

    def _file(self, rows: slice) -> Path:
        assert self._folder is not None
        return self._folder / f"rows_{rows.start:05d}.safetensors"

    def tensor(self, name: str) -> Rows:
        """A tensor of all rows."""
        if not self._from_files:
            return self._whole[name]
        shape, dtype = self._layout[name]
        return StoredRows(name, shape, dtype, 0, self._num_rows, tuple(self._shards))


def _recovered(path: Path, key: str, rows: slice) -> dict[str, Tensor] | None:
    """The tensors in `path` if they are intact, of this key, and those rows."""
    if not path.is_file():
        return None
    try:
        metadata, tensors = load_metadata(path), load_tensors(path)
    except CorruptFileError as error:
        logger.warning("%s; what it held is made again", error)
        return None
    if metadata.get("key") != key or metadata.get("rows") != [rows.start, rows.stop]:
        return None
    if metadata.get("sha256") != tensors_sha256(tensors):
        logger.warning("%s is damaged (its checksum differs); what it held is made again", path)
        return None
    return tensors
