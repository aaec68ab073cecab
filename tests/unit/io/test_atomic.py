import errno
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from vggrpo.config import DiskFullError
from vggrpo.io import atomic_file, atomic_folder, write_bytes, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_make_parents_and_replace(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_text(path, "old")
    write_text(path, "new\r\nä")
    assert path.read_bytes() == "new\r\nä".encode()
    assert names(path.parent) == ["b.txt"]


def test_json_round_trips_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"ä": [1, 2.5, None], "b": {"c": True}}
    write_json(path, value)
    assert json.loads(path.read_text("utf-8")) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text("utf-8")) == value


def test_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")
    assert names(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_interrupted_file_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def interrupted() -> None:
        with atomic_file(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a.bin"):
        pass
    assert names(tmp_path) == []


def test_full_disk_is_a_sentence_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def full() -> None:
        with atomic_file(path) as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"x")

    with pytest.raises(DiskFullError, match=r"no space is left to write .*a\.bin.*Free some space") as caught:
        full()
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_other_system_errors_pass_unchanged(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bytes(tmp_path / "folder", b"x")
    assert names(tmp_path) == ["folder"]


def test_folder_appears_complete(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "deep" / "run") as folder:
        assert not (tmp_path / "deep" / "run").exists()
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_text("1")
        (folder / "empty").mkdir()
    assert (tmp_path / "deep" / "run" / "sub" / "x").read_text() == "1"
    assert names(tmp_path / "deep") == ["run"]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_interrupted_folder_leaves_nothing_new(tmp_path: Path, error: BaseException, replace: bool) -> None:
    path = tmp_path / "run"
    if replace:
        path.mkdir()
        (path / "old").touch()

    def interrupted() -> None:
        with atomic_folder(path, replace=replace) as folder:
            (folder / "new").touch()
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert names(tmp_path) == (["run"] if replace else [])
    if replace:
        assert names(path) == ["old"]


def test_existing_folder_is_replaced_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "old").touch()
    with (
        pytest.raises(FileExistsError, match="run exists already; choose another folder"),
        atomic_folder(path),
    ):
        pass
    assert names(path) == ["old"]
    with atomic_folder(path, replace=True) as folder:
        (folder / "new").touch()
    assert names(path) == ["new"]
    assert names(tmp_path) == ["run"]


def test_failed_rename_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "old").touch()
    rename, failures = os.replace, [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]

    def full_at_first(source: Path, target: Path) -> None:
        if target == path and failures:
            raise failures.pop()
        rename(source, target)

    monkeypatch.setattr(os, "replace", full_at_first)
    with pytest.raises(DiskFullError), atomic_folder(path, replace=True) as folder:
        (folder / "new").touch()
    assert not failures
    assert names(path) == ["old"]
    assert names(tmp_path) == ["run"]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is flushed, by name, and what is renamed, by its new name, in their order."""
    order: list[tuple[str, str]] = []
    flush, rename = os.fsync, os.replace

    def flushing(descriptor: int) -> None:
        order.append(("flush", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        flush(descriptor)

    def renaming(source: Path, target: Path) -> None:
        order.append(("rename", target.name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(os, "replace", renaming)
    return order


def test_a_folder_is_flushed_once_before_its_name_and_the_name_after(
    tmp_path: Path, done: list[tuple[str, str]]
) -> None:
    with atomic_folder(tmp_path / "run") as folder:
        write_text(folder / "sub" / "a.txt", "x")
        write_text(folder / "b.txt", "x")
        assert {kind for kind, _ in done} == {"rename"}
        done.clear()
    assert done == [
        *(("flush", name) for name in ("b.txt", folder.name, "a.txt", "sub")),
        ("rename", "run"),
        ("flush", tmp_path.name),
    ]


def test_a_file_is_flushed_before_its_name_and_the_name_after(
    tmp_path: Path, done: list[tuple[str, str]]
) -> None:
    write_text(tmp_path / "b.txt", "x")
    (kind, temporary), *others = done
    assert kind == "flush"
    assert temporary.endswith(".txt")
    assert others == [("rename", "b.txt"), ("flush", tmp_path.name)]


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_parents_that_are_made_are_flushed_before_they_are_filled(
    tmp_path: Path, done: list[tuple[str, str]], atomic: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    with atomic(tmp_path / "runs" / "mine" / "b") as path:
        assert done == [("flush", tmp_path.name), ("flush", "runs")]
        if atomic is atomic_file:
            path.touch()
    assert done[-1] == ("flush", "mine")
