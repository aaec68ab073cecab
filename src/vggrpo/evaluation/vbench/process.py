"""Requests to the program that runs in VBench's environment."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vggrpo.config.errors import VggrpoError

RUNNER = Path(__file__).with_name("runner.py")
Answer = dict[str, Any]
"""{"video": path, "value": float} or {"video": path, "reason": str}."""


class VBenchError(VggrpoError):
    """VBench, or a dimension of it, cannot be had."""


def ask(python: Path, dimension: str, device: str, videos: Sequence[Path] | None) -> Iterator[Answer]:
    """Yields the answers of one dimension as they come; of a clip drawn for the purpose if `videos` is None.

    Args:
        python: the environment's interpreter.
        dimension: as VBench calls it.
        device: "cpu" or "cuda", with or without a number.
        videos: the files.

    Raises:
        VBenchError: if the dimension cannot be had, after what was answered until then.
    """
    request = {
        "dimension": dimension,
        "device": device,
        "videos": None if videos is None else [str(video.absolute()) for video in videos],
    }
    # Files instead of pipes where nobody reads along: a full pipe would stop the program.
    with tempfile.TemporaryFile("w+") as asked, tempfile.TemporaryFile("w+", errors="replace") as log:
        json.dump(request, asked)
        asked.seek(0)
        try:
            process = subprocess.Popen(
                # Isolated: neither PYTHONPATH nor this project's packages reach the other environment.
                [str(python), "-I", str(RUNNER)],
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        except OSError as failure:
            raise VBenchError(f"{python} cannot be started ({failure.strerror})") from failure
        error = None
        with process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if not line.endswith("\n"):
                        break  # It was killed while it wrote.
                    answer = json.loads(line)
                    error = answer.get("error")
                    if error is None:
                        yield answer
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            error = last_line(log) or f"it ended with code {process.returncode}"
        if error is not None:
            raise VBenchError(error)


def last_line(log: Any) -> str:
    """The last line of a text file that is not empty."""
    log.seek(0)
    return next((line.strip() for line in reversed(log.readlines()) if line.strip()), "")
