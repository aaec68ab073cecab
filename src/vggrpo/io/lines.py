"""Files of lines that only grow, and whose complete lines outlive whatever interrupts a write."""

import os
from pathlib import Path
from typing import BinaryIO

from vggrpo.io.atomic import naming_full_disk


def append_line(path: Path | str, line: str) -> None:
    """Adds a line (without its end), in place of an incomplete last one of a killed process.

    Raises:
        DiskFullError: if the space runs out; the file keeps its complete lines.
    """
    with naming_full_disk(path), open(path, "a+b", buffering=0) as file:
        end = _end_of_lines(file)
        file.truncate(end)
        rest = memoryview(f"{line}\n".encode())
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            raise


def _end_of_lines(file: BinaryIO) -> int:
    """The size of the file without an incomplete last line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if file.read(1) in (b"\n", b""):
        return size
    file.seek(0)
    return file.read().rfind(b"\n") + 1
