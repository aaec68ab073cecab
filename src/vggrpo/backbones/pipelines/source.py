"""Where the parts of a diffusers pipeline are, and loading them so that nothing wrong goes unnoticed."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from vggrpo.config.errors import CorruptFileError
from vggrpo.config.models import HUB_ID
from vggrpo.io import file_sha256

TOKENIZER_FILE, SENTENCEPIECE_FILE = "tokenizer.json", "spiece.model"
SINGLE_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
"""How diffusers and transformers name weights that are one file."""


class PipelineSource:
    """A diffusers pipeline, either a local folder or a Hugging Face repository, opened part by part.

    Of a repository only the parts that are asked for are downloaded, to huggingface_hub's own cache.
    """

    def __init__(self, name: str | Path) -> None:
        """`name` is the path of a folder, or a repository such as "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", also
        with "@" and a branch, tag or commit.

        Raises:
            FileNotFoundError: if it is neither a folder nor of the form owner/name.
        """
        self.name = str(name)
        self.is_local = Path(name).is_dir()
        repository = HUB_ID.fullmatch(self.name)
        self._repository: str | None = repository["id"] if repository else None
        self._revision: str | None = repository["revision"] if repository else None
        if not self.is_local and repository is None:
            raise FileNotFoundError(
                f"there is no folder {name}; expected a diffusers pipeline folder or a Hugging Face "
                "repository written as owner/name"
            )

    @cached_property
    def index(self) -> dict[str, Any]:
        """The content of model_index.json."""
        return read_json(self._root("model_index.json") / "model_index.json")

    def folder(self, part: str) -> Path:
        """The local folder of a part ("transformer", "vae", "text_encoder", "tokenizer", "scheduler").

        Raises:
            FileNotFoundError: if the pipeline has no such part, or the repository cannot be reached.
        """
        folder = self._root(f"{part}/*.json", f"{part}/*.safetensors", f"{part}/{SENTENCEPIECE_FILE}") / part
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{self.name} has no {part} folder: it is incomplete or no diffusers pipeline"
            )
        return folder

    def config(self, part: str) -> dict[str, Any]:
        """The configuration of a part, read without loading (or downloading) its weights."""
        file = f"{part}/scheduler_config.json" if part == "scheduler" else f"{part}/config.json"
        return read_json(self._root(file) / file)

    def _root(self, *patterns: str) -> Path:
        if self._repository is None or self.is_local:
            return Path(self.name)
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return Path(
                snapshot_download(self._repository, revision=self._revision, allow_patterns=list(patterns))
            )
        except (HfHubHTTPError, OSError) as error:
            raise FileNotFoundError(
                f"{self.name} is no local folder, and as a Hugging Face repository it cannot be fetched "
                f"({type(error).__name__}): check the path, or the network and the access rights"
            ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it does not hold a JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: the model's folder is incomplete")
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CorruptFileError(
            f"{path} is not valid JSON ({error}); get a fresh copy of the model"
        ) from error
    if not isinstance(content, dict):
        raise CorruptFileError(f"{path} does not hold a JSON object; get a fresh copy of the model")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a part, each present and readable to its end.

    Raises:
        FileNotFoundError: if there are none, or one that the index lists is missing.
        CorruptFileError: if one is truncated or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    indices = sorted(folder.glob("*.safetensors.index.json"))
    if indices:
        names = sorted(set(read_json(indices[0])["weight_map"].values()))
    else:
        names = [name for name in SINGLE_FILES if (folder / name).is_file()][:1]
    if not names:
        raise FileNotFoundError(
            f"{folder} holds no weights (expected {' or '.join(SINGLE_FILES)}): "
            "get a complete copy of the model"
        )
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no file {folder / name}, which {indices[0].name} lists: "
                "get a complete copy of the model"
            )
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except SafetensorError as error:
            raise CorruptFileError(
                f"{folder / name} is truncated or damaged ({error}); get a fresh copy of the model"
            ) from error
    return [folder / name for name in names]


def load_module(cls: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """`cls.from_pretrained(folder)`, frozen and in evaluation mode, with every weight accounted for.

    Where weights are missing, diffusers and transformers only warn and fill them at random; here it is an
    error.

    Raises:
        FileNotFoundError, CorruptFileError: naming the file that is missing, damaged or does not fit.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to load a {cls.__name__} from")
    files = weight_files(folder)
    read_json(folder / "config.json")
    try:
        with _quiet_loading():
            module, info = cls.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except (ValueError, RuntimeError) as error:
        raise CorruptFileError(
            f"the weights in {files[0]} do not fit the configuration beside them: {error}"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise CorruptFileError(
            f"{files[0]} lacks {len(missing)} weights of {cls.__name__}, among them {missing[0]}; "
            "get a complete copy of the model"
        )
    assert isinstance(module, nn.Module)
    return module.requires_grad_(False).eval()


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Without the libraries' warnings, which `load_module` turns into errors, and progress bars."""
    libraries = (diffusers_logging, transformers_logging)
    verbosities = [library.get_verbosity() for library in libraries]
    bars = transformers_logging.is_progress_bar_enabled()
    for library in libraries:
        library.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity in zip(libraries, verbosities, strict=True):
            library.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def fingerprint(*folders: Path) -> str:
    """SHA-256 of the configuration and weights (of a tokenizer, the file of its tokens) in these folders.

    Fields of the configuration that name library versions and places do not count.
    """
    digest = hashlib.sha256()
    for folder in folders:
        tokens = (folder / name for name in (TOKENIZER_FILE, SENTENCEPIECE_FILE))
        if (file := next(filter(Path.is_file, tokens), None)) is not None:
            digest.update(file_sha256(file).encode())
            continue
        config = {k: v for k, v in read_json(folder / "config.json").items() if not k.startswith("_")}
        config.pop("transformers_version", None)
        digest.update(json.dumps(config, sort_keys=True).encode())
        for file in weight_files(folder):
            digest.update(file_sha256(file).encode())
    return digest.hexdigest()
