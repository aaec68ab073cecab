"""The video or the latents that a scene is reconstructed from, read before any model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggrpo.backbones import resize_frames
from vggrpo.config import ConfigError, CorruptFileError, ReconstructSettings
from vggrpo.io import load_metadata, load_tensors, read_json, read_video

DEFAULT_FPS = 16.0


@dataclass(frozen=True, eq=False)
class SourceClip:
    """A video, or the latents of one; exactly one of `frames` and `latents` is set."""

    frames: Tensor | None
    """[1, T, H, W, 3] in [0, 1]."""
    latents: Tensor | None
    """[1, C, T_lat, H_lat, W_lat], normalised."""
    fps: float
    prompt: str | None
    autoencoder: str | None
    """Fingerprint of the autoencoder that the latents are of, where their file records it."""


def read_source(settings: ReconstructSettings) -> SourceClip:
    """The input of `vggrpo reconstruct`, with the changes that the settings ask for.

    The prompt is the one in the file's metadata, or in the JSON file beside it that `vggrpo generate` writes.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is damaged, or holds no latents.
        ConfigError: if the video has fewer frames than asked for.
    """
    read = _read_latents if settings.reads_latents else _read_video
    return read(settings, settings.input)


def _read_video(settings: ReconstructSettings, path: Path) -> SourceClip:
    pixels, fps = read_video(path)
    if settings.num_frames is not None:
        if len(pixels) < settings.num_frames:
            raise ConfigError(
                f"num_frames is {settings.num_frames}, but {path} has {len(pixels)} frames; ask for fewer"
            )
        pixels = pixels[: settings.num_frames]
    frames = torch.from_numpy(pixels)[None].float() / 255
    if settings.height is not None and settings.width is not None:
        frames = resize_frames(frames, settings.height, settings.width)
    return SourceClip(frames, None, settings.fps or fps or DEFAULT_FPS, _prompt(_sidecar(path)), None)


def _read_latents(settings: ReconstructSettings, path: Path) -> SourceClip:
    metadata, tensors = load_metadata(path), load_tensors(path)
    if "latents" not in tensors:
        raise CorruptFileError(
            f"{path} holds {', '.join(tensors) or 'nothing'}, but no `latents`; "
            "`vggrpo generate --save-latents` writes such a file"
        )
    latents = tensors["latents"].float()
    if latents.ndim == 4:
        latents = latents[None]
    if latents.ndim != 5 or len(latents) != 1:
        shape = list(tensors["latents"].shape)
        raise CorruptFileError(
            f"the latents in {path} have shape {shape}; expected one video's, [C, T, H, W]"
        )
    if not bool(latents.isfinite().all()):
        raise CorruptFileError(f"the latents in {path} hold numbers that are not finite; make them again")
    record = metadata or _sidecar(path)
    model, fps = record.get("model"), record.get("fps")
    autoencoder = model.get("autoencoder") if isinstance(model, Mapping) else None
    own_fps = float(fps) if isinstance(fps, int | float) and fps > 0 else DEFAULT_FPS
    return SourceClip(None, latents, settings.fps or own_fps, _prompt(record), autoencoder)


def _sidecar(path: Path) -> Mapping[str, Any]:
    """What the JSON file beside a video says; nothing if there is none."""
    sidecar = path.with_suffix(".json")
    record = read_json(sidecar) if sidecar.is_file() else {}
    return record if isinstance(record, Mapping) else {}


def _prompt(record: Mapping[str, Any]) -> str | None:
    prompt = record.get("prompt")
    return prompt if isinstance(prompt, str) else None
