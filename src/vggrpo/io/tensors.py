"""Named tensors with JSON metadata in one safetensors file."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggrpo.config.errors import CorruptFileError
from vggrpo.io.atomic import atomic_file

if TYPE_CHECKING:
    import torch

METADATA_KEY = "json"


def save_tensors(
    path: Path | str,
    tensors: Mapping[str, "torch.Tensor"],
    metadata: Mapping[str, Any] | None = None,
    *,
    flush: bool = True,
) -> None:
    """Writes tensors (any shapes and dtypes) and JSON metadata to a safetensors file, atomically.

    `flush` as of `atomic_file`.

    Raises:
        TypeError: if a value is no tensor, or the metadata does not fit JSON.
        DiskFullError: if the space runs out.
    """
    import torch
    from safetensors.torch import save

    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}; expected a tensor")
    # The format refuses views and shared memory, so each tensor gets storage of its own.
    contiguous = torch.contiguous_format
    own = {name: tensor.detach().cpu().clone(memory_format=contiguous) for name, tensor in tensors.items()}
    content = save(own, {METADATA_KEY: json.dumps(dict(metadata or {}))})
    with atomic_file(path, flush=flush) as temporary:
        temporary.write_bytes(content)


def load_tensors(path: Path | str, device: "torch.device | str" = "cpu") -> dict[str, "torch.Tensor"]:
    """The tensors of a safetensors file by name.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is truncated or not a safetensors file.
    """
    with _opened(path, str(device)) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def tensor_names(path: Path | str) -> list[str]:
    """The names of the tensors in a safetensors file, without their values.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is truncated or not a safetensors file.
    """
    with _opened(path, "cpu") as file:
        return list(file.keys())


def load_metadata(path: Path | str) -> dict[str, Any]:
    """The JSON metadata of a file by `save_tensors`; the plain strings of a file that another program wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is truncated or not a safetensors file.
    """
    with _opened(path, "cpu") as file:
        header = dict(file.metadata() or {})
        return dict(json.loads(header[METADATA_KEY])) if METADATA_KEY in header else header


def tensors_sha256(tensors: Mapping[str, "torch.Tensor"]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _opened(path: Path | str, device: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no tensor file {path}")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CorruptFileError(
            f"{path} is damaged or not a safetensors file ({error}); write it again or get a fresh copy"
        ) from error
