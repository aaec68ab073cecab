"""Which files are scored, and latents as files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vggrpo.config.errors import ConfigError, CorruptFileError
from vggrpo.config.score import Space
from vggrpo.data.videos import VIDEO_SUFFIXES
from vggrpo.evaluation.videos.base import Clip, as_utf8
from vggrpo.evaluation.videos.discovery import describe_clip
from vggrpo.io import load_metadata, load_tensors

LATENT_SUFFIX = ".safetensors"
SCENE_SUFFIX = ".scene.safetensors"
LATENTS_KEY = "latents"


@dataclass(frozen=True, eq=False)
class SavedLatents:
    """The latents of one video."""

    latents: Tensor
    """[1, C, T_lat, H_lat, W_lat], normalised."""
    autoencoder: str | None
    """Fingerprint of the autoencoder that they are of, where the file records it."""
    fps: float
    """Frames per second of the video; 0 if the file does not say."""


def is_latent_file(path: Path) -> bool:
    """By its name."""
    return path.name.endswith(LATENT_SUFFIX) and not path.name.endswith(SCENE_SUFFIX)


def find_scored_clips(paths: Sequence[Path], space: Space) -> list[Clip]:
    """The clips of files and folders, each once, in the order of `paths` and in folders of their names.

    Of a folder, sub-folders included, all videos and all latents count, as `vggrpo generate --save-latents`
    writes them. Where it holds both of one clip, the latents are scored in latent space, which spares an
    encoding that would change them, and the video in rgb. Tensor files of anything else are passed over.

    A file that does not exist is a clip as well: its record says so.

    Raises:
        ConfigError: if a folder holds nothing to score, or a file is neither a video nor latents.
    """
    found: dict[Path, Clip] = {}
    names: set[str] = set()
    for path in paths:
        for file in _files(path, space):
            key = file.absolute()
            if key not in found:
                own = file.relative_to(path) if path.is_dir() else Path(file.name)
                candidates = [as_utf8(name.as_posix()) for name in (own, file, key)]
                name = next((name for name in candidates if name not in names), candidates[-1])
                found[key] = describe_clip(file, name)
                names.add(name)
    return list(found.values())


def _files(path: Path, space: Space) -> list[Path]:
    if path.is_dir():
        files = _of_folder(path, space)
        if not files:
            raise ConfigError(
                f"{path} holds neither videos ({', '.join(VIDEO_SUFFIXES)}) nor latents (*{LATENT_SUFFIX})"
            )
        return files
    if path.suffix.lower() not in VIDEO_SUFFIXES and not is_latent_file(path):
        raise ConfigError(
            f"{path} is neither a folder, nor a video ({', '.join(VIDEO_SUFFIXES)}), nor latents "
            f"({LATENT_SUFFIX}, of `generate --save-latents`)"
        )
    return [path]


def _of_folder(folder: Path, space: Space) -> list[Path]:
    visible = [path for path in sorted(folder.rglob("*")) if not path.name.startswith(".") and path.is_file()]
    videos = [path for path in visible if path.suffix.lower() in VIDEO_SUFFIXES]
    latents = [path for path in visible if is_latent_file(path) and _holds_latents(path)]
    preferred, others = (latents, videos) if space == "latent" else (videos, latents)
    stems = {path.with_suffix("") for path in preferred}
    return sorted(preferred + [path for path in others if path.with_suffix("") not in stems])


def _holds_latents(path: Path) -> bool:
    """Whether a tensor file has latents; one that cannot be read counts, so that its record names it."""
    try:
        with safe_open(path, framework="pt") as file:
            return LATENTS_KEY in file.keys()  # noqa: SIM118 (not a mapping)
    except SafetensorError:
        return True


def read_latents(path: Path) -> SavedLatents:
    """Latents as `vggrpo generate --save-latents` writes them.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is damaged, or holds no latents of one video.
    """
    record, tensors = load_metadata(path), load_tensors(path)
    if LATENTS_KEY not in tensors:
        raise CorruptFileError(
            f"{path.name} holds {_listed(tensors)}, but no `{LATENTS_KEY}`; `vggrpo generate --save-latents` "
            "writes such a file"
        )
    latents = tensors[LATENTS_KEY].float()
    if latents.ndim == 4:
        latents = latents[None]
    if latents.ndim != 5 or len(latents) != 1:
        shape = list(tensors[LATENTS_KEY].shape)
        raise CorruptFileError(
            f"{path.name} holds latents of shape {shape}, expected [C, T, H, W] of one video"
        )
    if not bool(torch.isfinite(latents).all()):
        raise CorruptFileError(f"{path.name} holds latents that are not finite; make them again")
    model, fps = record.get("model"), record.get("fps")
    autoencoder: Any = model.get("autoencoder") if isinstance(model, Mapping) else None
    return SavedLatents(latents, autoencoder, float(fps) if isinstance(fps, int | float) else 0.0)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
