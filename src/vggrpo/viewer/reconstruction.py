"""A video or its latents to a 4D scene, by a latent geometry model or an uncut one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo import __version__
from vggrpo.backbones import (
    LatentSpec,
    VideoBackbone,
    load_geometry_backbone,
    load_video_backbone,
    resize_frames,
)
from vggrpo.config import ConfigError, CorruptFileError, ReconstructSettings, resolve_model
from vggrpo.geometry import SceneGeometry
from vggrpo.io import file_sha256
from vggrpo.lgm import LatentGeometryModel, read_latent_spec
from vggrpo.rewards import SceneReward
from vggrpo.viewer.scene_building import build_scene
from vggrpo.viewer.scene_file import Scene4D
from vggrpo.viewer.source_clip import SourceClip, read_source


@dataclass(frozen=True, eq=False)
class _Reconstruction:
    """What a model makes of a clip."""

    geometry: SceneGeometry
    frame_indices: list[int]
    frames: Tensor | None
    """The whole video [T, H, W, 3] in [0, 1]; None if it was not decoded."""


@torch.no_grad()
def reconstruct(
    settings: ReconstructSettings, rewards: Mapping[str, SceneReward], device: torch.device
) -> Scene4D:
    """The scene of `settings.input`, on the CPU, with its static mask and rewards; see `build_scene`.

    Args:
        settings: of the command.
        rewards: by name, as `settings.rewards` describes them.
        device: where the models run, one after the other.

    Raises:
        ConfigError: if a model does not exist, or cannot take this clip; before any is loaded.
        FileNotFoundError, CorruptFileError: if the input or a model is missing or damaged.
    """
    source = read_source(settings)
    made = (_through_latents if settings.lgm_path is not None else _through_pixels)(settings, source, device)
    reprojection = settings.rewards.reprojection
    return build_scene(
        made.geometry,
        made.frames,
        made.frame_indices,
        fps=source.fps,
        rewards=rewards,
        flow_threshold=reprojection.flow_threshold,
        relative=reprojection.relative,
        label=settings.input.stem,
        prompt=source.prompt,
        source={
            "input": settings.input.name,
            "sha256": file_sha256(settings.input),
            "model": str(settings.lgm_path or settings.geometry_model),
            "model_sees": "latents" if settings.lgm_path is not None else "pixels",
            "base_model": settings.base_model,
            "vggrpo": __version__,
        },
    )


def _through_latents(
    settings: ReconstructSettings, source: SourceClip, device: torch.device
) -> _Reconstruction:
    """By the latent geometry model; a video is encoded for it, latents are decoded for their colours."""
    assert settings.lgm_path is not None
    spec, _ = read_latent_spec(settings.lgm_path)
    video: VideoBackbone | None = None
    if source.latents is None or settings.decode:
        video = load_video_backbone(settings.base_model, device=device)
        with _settings_error():
            LatentGeometryModel.check_saved(settings.lgm_path, video.latent_spec, settings.base_model)
    if source.latents is not None:
        _check_latents(source.latents, source.autoencoder, spec, str(settings.lgm_path))
        latents = source.latents.to(device)
    else:
        assert video is not None
        assert source.frames is not None
        _, num_frames, height, width, _ = source.frames.shape
        with _settings_error("; change the video with --num-frames, or --height and --width"):
            spec.latent_shape(num_frames, height, width)
        latents = video.encode_video(source.frames.to(device))
        video.release("vae")
    geometry = LatentGeometryModel.from_pretrained(settings.lgm_path).to(device)(latents)
    frames = source.frames
    if source.latents is not None and video is not None:
        frames = video.decode_latents(latents).cpu()
    return _Reconstruction(
        geometry, spec.view_frames(geometry.num_views), None if frames is None else frames[0]
    )


def _through_pixels(
    settings: ReconstructSettings, source: SourceClip, device: torch.device
) -> _Reconstruction:
    """By an uncut geometry model; latents are decoded for it."""
    assert settings.geometry_model is not None
    resolve_model(settings.geometry_model, "geometry")  # a wrong name is found before anything is decoded
    frames = source.frames
    if source.latents is not None:
        video = load_video_backbone(settings.base_model, device=device)
        _check_latents(source.latents, source.autoencoder, video.latent_spec, settings.base_model)
        frames = video.decode_latents(source.latents.to(device)).cpu()
        video.release("vae")
    assert frames is not None
    indices = list(range(0, frames.shape[1], settings.view_stride))
    model = load_geometry_backbone(settings.geometry_model).to(device)
    height, width = _raster(frames.shape[2], frames.shape[3], settings.max_side, model.patch_size)
    views = resize_frames(frames[:, indices].to(device), height, width)
    return _Reconstruction(model(views), indices, frames[0])


def _raster(height: int, width: int, max_side: int, patch_size: int) -> tuple[int, int]:
    """The multiples of the patch size that are nearest to a video's sides, shrunk to `max_side` if longer."""
    shrink = min(1.0, max_side / max(height, width))
    first, second = (patch_size * max(1, round(side * shrink / patch_size)) for side in (height, width))
    return first, second


def _check_latents(latents: Tensor, fingerprint: str | None, spec: LatentSpec, reader: str) -> None:
    """Makes sure that `reader` is for these latents, as far as their channels and their file tell."""
    if latents.shape[1] == spec.channels and fingerprint in (None, spec.fingerprint):
        return
    origin = f" of the autoencoder {fingerprint[:12]}" if fingerprint else ""
    raise ConfigError(
        f"{reader} is for latents of {spec.channels} channels of the autoencoder {spec.fingerprint[:12]}, "
        f"but the input has {latents.shape[1]} channels{origin}; give --base-model, and --lgm-path if there "
        "is one, of the model that made it"
    )


@contextmanager
def _settings_error(remedy: str = "") -> Iterator[None]:
    """Turns a complaint about an argument into one about the settings that it comes from."""
    try:
        yield
    except CorruptFileError:
        raise
    except ValueError as error:
        raise ConfigError(f"{error}{remedy}") from error
