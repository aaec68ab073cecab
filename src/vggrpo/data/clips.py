"""A cache of clips on disk: named tensors by clip, in shards, built with resume, read clip by clip."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vggrpo.config.errors import ConfigError, CorruptFileError
from vggrpo.io import load_metadata, progress, save_tensors, write_json

INDEX_NAME = "cache.json"

MakeBatches = Callable[[int], Iterator[Mapping[str, Tensor]]]
"""From the number of clips that exist already to batches of the next ones: tensors by name, [B, ...]."""


class ClipCache:
    """Clips 0 .. N - 1, each a dictionary of tensors, such as `latents` and the views' `frames`.

    Reading touches only the bytes of the clips that are asked for: the shards are memory-mapped.
    """

    def __init__(self, folder: Path | str, num_clips: int | None = None) -> None:
        """Opens the first `num_clips` clips, or all.

        Raises:
            FileNotFoundError: if there is no cache, or it has fewer clips.
            CorruptFileError: if its index or a shard is damaged.
        """
        self.folder = Path(folder)
        index = _read_index(self.folder)
        if index is None:
            raise FileNotFoundError(f"there is no clip cache in {self.folder}: build it first")
        self.key: dict[str, Any] = index["key"]
        """What the clips were made with."""
        self._shard_size: int = index["shard_size"]
        available = sum(_shard_lengths(self.folder))
        if available < (num_clips or 1):
            raise FileNotFoundError(
                f"the clip cache in {self.folder} has {available} of {num_clips or 'its'} clips: "
                "run the command that builds it again"
            )
        self._num_clips = num_clips or available
        self._shards: dict[int, Any] = {}

    @classmethod
    def build(
        cls,
        folder: Path | str,
        make_batches: MakeBatches,
        *,
        key: Mapping[str, Any],
        num_clips: int,
        shard_size: int = 64,
        rebuild: bool = False,
        description: str = "make clips",
    ) -> "ClipCache":
        """Makes the clips that the folder lacks, and opens it.

        Full shards are kept, so an interruption costs at most one shard, and a larger `num_clips` than before
        only makes more.

        Args:
            folder: the cache; made if it does not exist.
            make_batches: called with the number of clips that are kept, if any are missing. Clip i must not
                depend on where the batches start.
            key: everything that determines the clips (models by fingerprint, sizes, seeds), fit for JSON.
            num_clips: clips in all.
            shard_size: clips a file; an existing cache keeps its own.
            rebuild: delete clips that were made with another key, instead of refusing.
            description: what the progress bar says.

        Raises:
            ConfigError: if the folder holds clips of another key.
            ValueError: if a number is not positive, or the batches are empty or end too early.
        """
        folder = Path(folder)
        for name, value in (("num_clips", num_clips), ("shard_size", shard_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        shard_size = _prepare(folder, json.loads(json.dumps(dict(key))), shard_size, rebuild)
        lengths = _shard_lengths(folder)
        if sum(lengths) < num_clips:
            done = lengths.count(shard_size) * shard_size
            with progress(description, total=num_clips, done=done, unit="clip") as bar:
                for shard, tensors in _regroup(make_batches(done), done, num_clips, shard_size):
                    length = _batch_size(tensors)
                    save_tensors(_shard_file(folder, shard), tensors, {"clips": length})
                    bar.advance(length)
        return cls(folder, num_clips)

    def __len__(self) -> int:
        return self._num_clips

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The tensors of clip `index` in 0 .. N - 1."""
        if not 0 <= index < self._num_clips:
            raise IndexError(f"clip {index} of {self.folder} is asked for, which has {self._num_clips} clips")
        shard, row = divmod(index, self._shard_size)
        file = self._opened(shard)
        return {name: file.get_slice(name)[row] for name in file.keys()}  # noqa: SIM118 (not a mapping)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The tensors of several clips, [B, ...] by name, in the order of `indices`.

        Raises:
            ValueError: if `indices` is empty.
        """
        clips = [self[int(index)] for index in indices]
        if not clips:
            raise ValueError("indices is empty; ask for at least one clip")
        return {name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}

    def _opened(self, shard: int) -> Any:
        if shard not in self._shards:
            path = _shard_file(self.folder, shard)
            try:
                self._shards[shard] = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise CorruptFileError(
                    f"{path} is damaged ({error}); delete it and run the command that builds the cache again"
                ) from error
        return self._shards[shard]


def _prepare(folder: Path, key: dict[str, Any], shard_size: int, rebuild: bool) -> int:
    """Makes the index where there is none, and returns the cache's shard size."""
    index = _read_index(folder)
    if index is not None and index["key"] == key:
        return int(index["shard_size"])
    if index is not None and not rebuild:
        raise ConfigError(
            f"the clips in {folder} were made with other settings ({_difference(index['key'], key)}): "
            "choose another folder, or delete this one"
        )
    for file in folder.glob("clips_*.safetensors"):
        file.unlink()
    write_json(folder / INDEX_NAME, {"key": key, "shard_size": shard_size})
    return shard_size


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {old.get(name)!r} there, {new.get(name)!r} now" for name in names)


def _read_index(folder: Path) -> dict[str, Any] | None:
    path = folder / INDEX_NAME
    if not path.is_file():
        return None
    try:
        index = json.loads(path.read_text("utf-8"))
        return {"key": dict(index["key"]), "shard_size": int(index["shard_size"])}
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(f"{path} is damaged; delete {folder} to build the clips again") from error


def _shard_file(folder: Path, shard: int) -> Path:
    return folder / f"clips_{shard:06d}.safetensors"


def _shard_lengths(folder: Path) -> list[int]:
    """Clips in every shard, up to the first that is missing. Only the last can be shorter than the others."""
    lengths: list[int] = []
    while (path := _shard_file(folder, len(lengths))).is_file():
        lengths.append(int(load_metadata(path)["clips"]))
    return lengths


def _regroup(
    batches: Iterator[Mapping[str, Tensor]], done: int, num_clips: int, shard_size: int
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Batches of any size as numbered shards; `done` is a multiple of the shard size."""
    held: list[Mapping[str, Tensor]] = []
    count = 0
    while done < num_clips:
        wanted = min(shard_size, num_clips - done)
        while count < wanted:
            batch = next(batches, None)
            if batch is None:
                raise ValueError(f"the batches ended after {done + count} of {num_clips} clips")
            held.append(batch)
            count += _batch_size(batch)
        joined = {name: torch.cat([batch[name] for batch in held]) for name in held[0]}
        yield done // shard_size, {name: tensor[:wanted] for name, tensor in joined.items()}
        held = [{name: tensor[wanted:] for name, tensor in joined.items()}]
        count -= wanted
        done += wanted


def _batch_size(batch: Mapping[str, Tensor]) -> int:
    sizes = {name: len(tensor) for name, tensor in batch.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ValueError(f"a batch holds {sizes} clips by tensor, expected the same positive number in each")
    return next(iter(sizes.values()))
