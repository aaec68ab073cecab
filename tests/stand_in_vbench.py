"""An environment with a package that has VBench's entry points and its habits, but no weights."""

import os
import shutil
import sys
import sysconfig
import venv
from pathlib import Path

UTILS = """
import json, subprocess

def init_submodules(dimensions, local=False, read_frame=False):
    print("looking for weights")  # VBench prints much on the standard output.
    if dimensions == ["subject_consistency"]:
        subprocess.run(["false", "https://example.invalid/dino.pth"], check=True)
    return {dimension: {"read_frame": read_frame} for dimension in dimensions}

def videos_of(json_dir, dimension):
    entries = json.load(open(json_dir))
    return [video for entry in entries if dimension in entry["dimension"] for video in entry["video_list"]]
"""

DIMENSION = """
import os, sys, torch
from vbench.utils import videos_of

def compute_{name}(json_dir, device, submodules, **kwargs):
    assert isinstance(device, torch.device) and not torch.is_grad_enabled()
    results = []
    for video in videos_of(json_dir, "{name}"):
        print("measuring", video)
        if os.path.basename(video) == "crash.mp4":
            sys.stderr.write("Killed by the system\\n")
            sys.stderr.flush()
            os._exit(9)
        if os.path.basename(video).startswith("bad"):
            raise RuntimeError("cannot\\nread " + os.path.basename(video))
        size = os.path.getsize(video) if os.path.basename(video) != "none.mp4" else float("nan")
        results.append({{"video_path": video, "video_results": {value}}})
    return sum(float(r["video_results"]) for r in results) / len(results), results
"""

TORCH = """
import contextlib

device = type("device", (str,), {})
_grad = True

def is_grad_enabled():
    return _grad

@contextlib.contextmanager
def no_grad():
    global _grad
    _grad = False
    yield
    _grad = True
"""

VALUES = {
    "subject_consistency": "1.0",
    "background_consistency": "1.0",
    "aesthetic_quality": "1.0",
    "imaging_quality": "float(size)",
    "motion_smoothness": "1 / 0",
    "dynamic_degree": "size > 100",
    "temporal_flickering": "size / 1000",
}

PYTHON = """#!/bin/sh
# An interpreter that makes a ready environment instead of a new one.
if [ "$1 $2" = "-m venv" ]; then exec cp -r "{environment}/." "$3"; fi
exec "{python}" "$@"
"""

ENVIRONMENT_PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m pip" ]; then echo "installed: $@"; exit 0; fi
exec "{python}" "$@"
"""


def make_environment(folder: Path) -> Path:
    """Makes it, with this interpreter's OpenCV and as much of torch as is used; returns its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    package = packages / "vbench"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "utils.py").write_text(UTILS)
    for name, value in VALUES.items():
        (package / f"{name}.py").write_text(DIMENSION.format(name=name, value=value))
    (packages / "torch.py").write_text(TORCH)
    (packages / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def make_installer(folder: Path) -> Path:
    """An interpreter with which `setup_vbench` makes such an environment, without a network."""
    ready = folder / "ready"
    interpreter = make_environment(ready)
    real = folder / "ready-python"
    shutil.copytree(ready, real, symlinks=True)
    interpreter.unlink()
    _write_script(interpreter, ENVIRONMENT_PYTHON.format(python=real / "bin" / "python"))
    installer = folder / "python"
    _write_script(installer, PYTHON.format(environment=ready, python=sys.executable))
    return installer


def write_script(path: Path, lines: str) -> Path:
    """A shell script that stands for an interpreter."""
    _write_script(path, f"#!/bin/sh\n{lines}\n")
    return path


def _write_script(path: Path, text: str) -> None:
    path.write_text(text)
    os.chmod(path, 0o755)
