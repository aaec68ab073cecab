import hashlib
import json
from pathlib import Path

import pytest

from vggrpo.config import CorruptFileError
from vggrpo.io import file_sha256, verify_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "sub" / "b.bin").write_bytes(bytes(range(256)) * 10)
    write_manifest(tmp_path)
    return tmp_path


def test_manifest_lists_every_file_with_its_hash(folder: Path) -> None:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert files["a.bin"] == {"bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    assert set(files) == {"a.bin", "sub/b.bin"}
    assert file_sha256(folder / "a.bin") == hashlib.sha256(b"abc").hexdigest()


def test_intact_folder_passes_also_after_a_second_manifest_and_with_extra_files(folder: Path) -> None:
    verify_manifest(folder)
    write_manifest(folder)
    (folder / "notes.txt").write_text("mine")
    verify_manifest(folder)


def test_a_flipped_bit_is_found(folder: Path) -> None:
    path = folder / "sub" / "b.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"content of b\.bin has changed"):
        verify_manifest(folder)


def test_all_damage_is_named(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"ab")
    (folder / "sub" / "b.bin").unlink()
    with pytest.raises(
        CorruptFileError, match=r"a\.bin has 2 bytes instead of 3; b\.bin is missing"
    ) as caught:
        verify_manifest(folder)
    assert str(folder) in str(caught.value)


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json"):
        verify_manifest(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": {"a": {}}}', '{"files": [1]}'])
def test_unreadable_manifest(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(CorruptFileError, match="not a readable manifest"):
        verify_manifest(folder)
