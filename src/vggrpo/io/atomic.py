"""Files and folders that exist either completely or not at all.

Everything is written to a temporary sibling, flushed to the disk and renamed, so that an interruption,
a crash or a full disk leaves what was there before.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vggrpo.config.errors import CorruptFileError, DiskFullError

TEMPORARY_MARK = ".partial-"
"""Part of the name of every temporary sibling; such a leftover of a killed process can be deleted."""
REPLACED_MARK = ".replaced-"
"""Part of the name of a folder while another takes its place."""


@contextmanager
def atomic_file(path: Path | str, *, flush: bool = True) -> Iterator[Path]:
    """Yields a temporary path with the suffix of `path`; what is written there becomes `path` on success.

    Missing parent folders are made. On any error, interruption included, the temporary file is removed.

    Args:
        path: the file to make.
        flush: wait until the file is on the disk. Without, it survives the process, but not a power cut.

    Raises:
        DiskFullError: if the space runs out.
    """
    path = Path(path)
    # Inside an `atomic_folder` everything is flushed once, at its end.
    durable = flush and not any(TEMPORARY_MARK in part for part in path.parent.parts)
    make_folder(path.parent, flush=durable)
    temporary = path.with_name(f".{path.stem}{TEMPORARY_MARK}{secrets.token_hex(4)}{path.suffix}")
    try:
        with naming_full_disk(path):
            yield temporary
            if durable:
                _flush(temporary)
            os.replace(temporary, path)
            if durable:
                _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str, *, replace: bool = False) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`, which becomes `path` when the block succeeds.

    On any error, interruption included, the temporary folder is removed and an older folder at `path` stays.

    Args:
        path: the folder to make; missing parents are made.
        replace: whether an existing folder may be replaced.

    Raises:
        FileExistsError: if `path` exists and `replace` is false.
        DiskFullError: if the space runs out.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise FileExistsError(f"{path} exists already; choose another folder or remove it")
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}{TEMPORARY_MARK}{secrets.token_hex(4)}")
    replaced = path.with_name(f".{path.name}{REPLACED_MARK}{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        with naming_full_disk(path):
            yield temporary
            for folder, _, names in os.walk(temporary):
                for name in names:
                    _flush(Path(folder) / name)
                _flush(Path(folder))
            if path.exists():
                os.replace(path, replaced)
            os.replace(temporary, path)
            _flush(path.parent)
    finally:
        if replaced.exists() and not path.exists():
            os.replace(replaced, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def make_folder(path: Path, *, flush: bool = True) -> None:
    """Makes a folder and its parents, each of them on the disk before something is put into it.

    Without `flush` they survive the process, but not a power cut. One that exists is left alone.
    """
    if path.is_dir():
        return
    make_folder(path.parent, flush=flush)
    path.mkdir(exist_ok=True)
    if flush:
        _flush(path.parent)


def remove_leftovers(folder: Path | str) -> None:
    """Deletes what a killed process had begun to write below `folder`; a folder that was being replaced when
    it was killed is put back.
    """
    for replaced in list(Path(folder).rglob(f".*{REPLACED_MARK}*")):
        name = replaced.name[1:].rpartition(REPLACED_MARK)[0]
        if not replaced.with_name(name).exists():
            os.replace(replaced, replaced.with_name(name))
        else:
            shutil.rmtree(replaced)
    for leftover in list(Path(folder).rglob(f".*{TEMPORARY_MARK}*")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)  # it went with its folder


def write_bytes(path: Path | str, data: bytes) -> None:
    """Writes `data` to `path` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Writes `text` to `path` atomically, as UTF-8 with the newlines it has."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Writes `value` to `path` atomically as indented JSON; NaN and infinities are refused.

    Raises:
        TypeError, ValueError: if JSON cannot hold the value.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise CorruptFileError(
            f"{path} is not valid JSON ({error}); make it again or restore a copy"
        ) from error


@contextmanager
def naming_full_disk(path: Path | str) -> Iterator[None]:
    """Turns the system's "no space" error into a `DiskFullError` that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = DiskFullError(
            f"no space is left to write {path}; what was there before is unchanged. "
            "Free some space (or choose another output folder) and run the command again"
        )
        full.errno = error.errno
        raise full from error


def _flush(path: Path) -> None:
    """Forces a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
