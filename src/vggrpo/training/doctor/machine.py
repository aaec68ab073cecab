"""GPUs, memory, disks, and the way to Hugging Face."""

import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import psutil
import torch
from huggingface_hub import constants, get_token

from vggrpo.training.doctor.finding import Finding

GIB = 2**30
LEAST_MEMORY = 4 * GIB
"""What `vggrpo demo` takes, with some to spare."""
LEAST_DISK = 5 * GIB
WAN_DISK = 100 * GIB
"""One Wan pipeline, one geometry model, and runs without the clips of `train-lgm`."""
DRIVER = Path("/proc/driver/nvidia/version")
CGROUP = Path("/sys/fs/cgroup")
HUB_TIMEOUT = 5.0
"""Seconds."""


def devices() -> Iterator[Finding]:
    """Each GPU with its free memory, or why there is none."""
    if not torch.cuda.is_available():
        yield _no_gpu()
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found = f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
        if free < total / 2:
            yield Finding(f"cuda:{index}", "note", found, "another process uses it; nvidia-smi names it")
        else:
            yield Finding(f"cuda:{index}", "ok", found)


def _no_gpu() -> Finding:
    if not DRIVER.exists():
        remedy = "the micro family needs none; for Wan use a machine with a GPU"
        return Finding("GPU", "note", f"none; {torch.get_num_threads()} CPU threads", remedy)
    if torch.version.cuda is None:
        return Finding(
            "GPU",
            "error",
            f"there is an NVIDIA driver, but torch {torch.__version__} is built for the CPU",
            "install the CUDA build of torch (https://pytorch.org/get-started)",
        )
    return Finding(
        "GPU",
        "error",
        f"there is an NVIDIA driver, but torch (CUDA {torch.version.cuda}) finds no device",
        "look at CUDA_VISIBLE_DEVICES; update the driver if it is older than that CUDA",
    )


def memory() -> Finding:
    """Memory of the machine, or of the container, that is free."""
    machine = psutil.virtual_memory()
    free, total = machine.available, machine.total
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    if limit is not None and used is not None and limit < total:
        free, total = min(free, limit - used), limit
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < LEAST_MEMORY:
        return Finding("memory", "note", found, "end other programs, or lower batch sizes")
    return Finding("memory", "ok", found)


def _number(file: Path) -> int | None:
    """The number in a file of the system; None if there is no such file, or it says "max"."""
    text = file.read_text().strip() if file.is_file() else ""
    return int(text) if text.isdecimal() else None


def disk(folder: Path) -> Iterator[Finding]:
    """Free space where runs are written, and where weights are downloaded to."""
    cache = Path(constants.HF_HUB_CACHE)
    for subject, place, remedy in (
        ("disk of runs", folder, "free some, or name another disk with --output"),
        ("disk of weights", cache, "free some, or name another disk with HF_HOME"),
    ):
        existing = next(path for path in (place, *place.absolute().parents) if path.is_dir())
        free = shutil.disk_usage(existing).free
        found = f"{free / GIB:.0f} GiB free at {place}"
        if free < LEAST_DISK:
            yield Finding(subject, "error", found, remedy)
        elif free < WAN_DISK:
            yield Finding(subject, "note", found, f"enough for the micro family; for Wan {remedy}")
        else:
            yield Finding(subject, "ok", found)


def hub() -> Finding:
    """Whether weights can be downloaded."""
    if constants.HF_HUB_OFFLINE:
        return Finding(
            "Hugging Face", "note", "HF_HUB_OFFLINE is set", "unset it where weights are to be downloaded"
        )
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT):
            pass
    except HTTPError as error:
        problem = f"{constants.ENDPOINT} answers {error.code}"
    except OSError as error:
        problem = f"{constants.ENDPOINT} cannot be reached ({getattr(error, 'reason', error)})"
    else:
        token = "with" if get_token() else "without"
        return Finding("Hugging Face", "ok", f"{constants.ENDPOINT} answers; {token} a token of yours")
    return Finding(
        "Hugging Face",
        "note",
        problem,
        "check network and proxy; or copy a model's folder here and name the folder",
    )
