"""VBench's own environment: made once, in the user's cache.

VBench 0.1.5 needs numpy 1, transformers 4.33 and torch before 2.6, and cannot live beside this project.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from vggrpo.config.errors import ConfigError, CorruptFileError
from vggrpo.config.evaluate import VBenchDimension
from vggrpo.evaluation.cache import cache_folder
from vggrpo.evaluation.vbench.process import VBenchError, ask, last_line
from vggrpo.io import read_json, write_json

DIMENSIONS: tuple[str, ...] = get_args(VBenchDimension)
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
STATE_FILE = "environment.json"
LOG_FILE = "setup.log"
PYTHONS = ((3, 10), (3, 11))
"""Versions for which all of the pinned packages are built."""
COMMAND = "vggrpo evaluate --setup vbench"


@dataclass(frozen=True)
class VBenchState:
    """What there is of VBench's environment."""

    folder: Path
    problem: str | None
    """Why it cannot be used at all; None if it can. `COMMAND` is the remedy."""
    created: str = ""
    """When it was made, ISO 8601; names the environment in results."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Dimensions that cannot be measured all the same, and why: their weights could not be fetched."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def reason(self, dimension: str) -> str | None:
        """Why a dimension cannot be measured, with the remedy; None if it can."""
        problem = self.problem or self.unavailable.get(dimension)
        if problem is None:
            return None
        return f"{problem}; `{COMMAND}` {'makes it' if self.problem else 'tries again'}"


def vbench_state() -> VBenchState:
    """Looks at the environment, without running anything."""
    folder = cache_folder("vbench")
    path = folder / STATE_FILE
    if not path.is_file():
        return VBenchState(folder, "VBench has no environment")
    try:
        content = read_json(path)
        state = VBenchState(folder, None, content["created"], content["unavailable"])
        requirements = content["requirements"]
    except (CorruptFileError, KeyError, TypeError):
        return VBenchState(folder, f"{path} is damaged")
    if requirements != requirements_sha256():
        return VBenchState(folder, "VBench's environment is that of another version of this program")
    if not state.python.exists():
        return VBenchState(folder, "VBench's environment has lost its Python")
    return state


def setup_vbench(
    python: Path | None = None, device: str = "cpu", report: Callable[[str], None] = print
) -> VBenchState:
    """Makes the environment, unless it is there already, and tries every dimension, which fetches weights.

    A dimension that cannot be had is no error: the state says why.

    Args:
        python: the interpreter to make it with; None looks for one.
        device: where dimensions are tried.
        report: is told what happens.

    Raises:
        ConfigError: if there is no suitable interpreter.
        VBenchError: if the environment cannot be made; the message names the log.
    """
    state = vbench_state()
    if state.problem is None and python is not None:
        report(f"the environment is there already; to make it with {python}, remove {state.folder} first")
    if state.problem is not None:
        _make(state.folder, find_python(python), report)
    unavailable: dict[str, str] = {}
    for dimension in DIMENSIONS:
        reason = _try(state.python, dimension, device)
        report(f"{dimension}: {reason or 'works'}")
        if reason is not None:
            unavailable[dimension] = reason
    created = state.created or datetime.now(UTC).isoformat(timespec="seconds")
    content = {"created": created, "requirements": requirements_sha256(), "unavailable": unavailable}
    write_json(state.folder / STATE_FILE, content)
    return vbench_state()


def find_python(python: Path | None = None) -> Path:
    """An interpreter of a version that VBench's packages are built for.

    Raises:
        ConfigError: if the one that is named is of another version, or none is found.
    """
    versions = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    if python is not None:
        if _version(python) not in PYTHONS:
            raise ConfigError(f"{python} is no Python {versions}, which VBench's packages are built for")
        return python
    found = [sys.executable, *(shutil.which(f"python{major}.{minor}") for major, minor in reversed(PYTHONS))]
    for candidate in found:
        if candidate and _version(Path(candidate)) in PYTHONS:
            return Path(candidate)
    raise ConfigError(
        f"VBench needs Python {versions}, and none is found; install one, or name it with --python"
    )


def _version(python: Path) -> tuple[int, int] | None:
    """(major, minor) of an interpreter; None if it does not run."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        run = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True)
        major, minor = map(int, run.stdout.split())
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
    return major, minor


def _make(folder: Path, python: Path, report: Callable[[str], None]) -> None:
    """Makes a fresh environment in `folder`; an unfinished or older one there is removed."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    log = folder / LOG_FILE
    report(f"installing VBench into {folder} with {python}; this takes minutes and 7 GB ({log})")
    pip = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
    ]
    for command in ([str(python), "-m", "venv", str(folder)], [*pip, "-r", str(REQUIREMENTS)]):
        with open(log, "a+", encoding="utf-8", errors="replace") as file:
            try:
                subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise VBenchError(
                    f"VBench's environment cannot be made ({last_line(file) or error}); the log is {log}"
                ) from error


def _try(python: Path, dimension: str, device: str) -> str | None:
    """Why a dimension cannot be had; None if it can."""
    try:
        for answer in ask(python, dimension, device, None):
            if "reason" in answer:
                return str(answer["reason"])
    except VBenchError as error:
        return str(error)
    return None


def requirements_sha256() -> str:
    """Names the packages that an environment was made of."""
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
