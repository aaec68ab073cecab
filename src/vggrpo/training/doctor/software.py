"""Python, the packages, and the two imports that tend to break."""

import importlib
import re
import sys
from importlib import metadata

from packaging.requirements import Requirement

from vggrpo.training.doctor.finding import Finding

LEAST_PYTHON = (3, 11)


def python() -> Finding:
    """The interpreter."""
    found = f"{sys.version.split()[0]}, {sys.executable}"
    if sys.version_info[:2] < LEAST_PYTHON:
        return Finding("Python", "error", found, f"use Python {'.'.join(map(str, LEAST_PYTHON))} or newer")
    return Finding("Python", "ok", found)


def packages(distribution: str = "vggrpo") -> Finding:
    """Whether the installed packages are those that `distribution` asks for."""
    wrong = []
    for requirement in map(Requirement, metadata.requires(distribution) or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
    if wrong:
        return Finding(
            "packages", "error", "; ".join(wrong), f"pip install --upgrade {distribution} installs them"
        )
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "diffusers", "transformers"))
    return Finding("packages", "ok", f"{distribution} {metadata.version(distribution)}, {shown}")


def torchvision() -> Finding:
    """Nothing here needs torchvision, but diffusers imports one that is there: one of another build of torch
    breaks every Wan class."""
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return Finding("torchvision", "ok", "not installed, and not needed")
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        return Finding(
            "torchvision",
            "error",
            f"{version} cannot be imported beside torch {metadata.version('torch')}: {_short(error)}",
            "pip uninstall torchvision",
        )
    return Finding("torchvision", "ok", f"{version}, which can be imported")


def wan_classes() -> Finding:
    """Whether the classes of the video models can be imported at all."""
    try:
        diffusers, transformers = map(importlib.import_module, ("diffusers", "transformers"))
        found = [diffusers.WanPipeline, transformers.UMT5EncoderModel]
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        return Finding(
            "Wan classes",
            "error",
            f"they cannot be imported: {_short(error)}",
            "mend the packages above; if they are right, install vggrpo into a new environment",
        )
    return Finding("Wan classes", "ok", " and ".join(cls.__name__ for cls in found))


def _short(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error))[:200]
