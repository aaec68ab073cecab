"""A folder's manifest: the size and SHA-256 of every file, by which damage is found before it is loaded."""

import hashlib
import json
from pathlib import Path

from vggrpo.config.errors import CorruptFileError
from vggrpo.io.atomic import write_json
from vggrpo.io.lock import LOCK_NAME

MANIFEST_NAME = "manifest.json"


def file_sha256(path: Path | str) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path | str) -> Path:
    """Writes `manifest.json` over every file below `folder` and returns its path."""
    folder = Path(folder)
    own = (folder / MANIFEST_NAME, folder / LOCK_NAME)
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in own
    }
    write_json(folder / MANIFEST_NAME, {"files": files})
    return folder / MANIFEST_NAME


def verify_manifest(folder: Path | str) -> None:
    """Checks every file that the folder's manifest lists; files that it does not list are no concern of it.

    Raises:
        FileNotFoundError: if the folder or its manifest is missing.
        CorruptFileError: if files are missing or changed; names each and what is wrong with it.
    """
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {MANIFEST_NAME}: it is incomplete or of another origin")
    try:
        entries = {
            name: (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in json.loads(path.read_text("utf-8"))["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"{path} is not a readable manifest ({error})") from error
    problems = [problem for name, entry in entries.items() if (problem := _problem(folder / name, *entry))]
    if problems:
        raise CorruptFileError(f"{folder} is damaged: " + "; ".join(problems))


def _problem(path: Path, size: int, sha256: str) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != size:
        return f"{path.name} has {path.stat().st_size} bytes instead of {size}"
    if file_sha256(path) != sha256:
        return f"the content of {path.name} has changed (its SHA-256 differs)"
    return None
