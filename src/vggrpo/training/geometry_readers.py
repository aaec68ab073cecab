"""The ways from a clip to its predicted geometry that `vggrpo evaluate-geometry` compares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vggrpo.backbones import (
    GeometryBackbone,
    VideoBackbone,
    load_geometry_backbone,
    load_video_backbone,
    resize_frames,
)
from vggrpo.config import ConfigError, CorruptFileError, EvaluateGeometrySettings
from vggrpo.config.lgm import WORLD
from vggrpo.evaluation import KeyFrameTeacher
from vggrpo.geometry import SceneGeometry
from vggrpo.lgm import LatentGeometryModel
from vggrpo.training.lgm_data import weights_fingerprint

PIXELS, DECODED, LATENTS = "pixels", "decoded", "latents"
LABELS = {
    PIXELS: "geometry model on the frames",
    DECODED: "geometry model on the autoencoded frames",
    LATENTS: "latent geometry model on the latents",
}
"""The readings in the order in which tables show them."""


@dataclass(frozen=True)
class StridedViews:
    """An uncut model on every `stride`-th frame of clips, on the nearest raster that it takes."""

    geometry: GeometryBackbone
    stride: int

    def __call__(self, frames: Tensor) -> SceneGeometry:
        """Frames [B, T, H, W, 3] in [0, 1] to their scenes."""
        patch = self.geometry.patch_size
        height, width = (patch * max(1, round(side / patch)) for side in frames.shape[2:4])
        scene: SceneGeometry = self.geometry(resize_frames(frames[:, :: self.stride], height, width))
        return scene


@dataclass(frozen=True)
class GeometryReaders:
    """The models that are measured, on one device."""

    device: torch.device
    stride: int
    """Frames from one view to the next."""
    by_pixels: Callable[[Tensor], SceneGeometry] | None
    """Frames [B, T, H, W, 3] in [0, 1] to the scenes of the uncut model."""
    lgm: LatentGeometryModel | None
    video: VideoBackbone | None
    """Its autoencoder makes latents; only with `lgm`."""
    identity: dict[str, Any]
    """What determines the models, for JSON."""

    @property
    def names(self) -> tuple[str, ...]:
        """The readings that there are."""
        if self.lgm is None:
            return (PIXELS,)
        return (LATENTS,) if self.by_pixels is None else (PIXELS, DECODED, LATENTS)

    def encode(self, frames: Tensor) -> Tensor:
        """Normalised latents [B, C, T_lat, H_lat, W_lat] of frames [B, T, H, W, 3].

        Raises:
            ValueError: if the autoencoder cannot take them.
        """
        assert self.video is not None
        _, num_frames, height, width, _ = frames.shape
        self.video.latent_spec.latent_shape(num_frames, height, width)
        return self.video.encode_video(frames.to(self.device))

    def of_latents(self, latents: Tensor) -> dict[str, SceneGeometry]:
        """The readings of latents: "latents", and "decoded" if there is an uncut model."""
        assert self.lgm is not None
        assert self.video is not None
        scenes = {}
        if self.by_pixels is not None:
            scenes[DECODED] = self.by_pixels(self.video.decode_latents(latents))
        return scenes | {LATENTS: self.lgm(latents)}

    @torch.no_grad()
    def read(self, frames: Tensor) -> dict[str, SceneGeometry]:
        """All readings of clips [B, T, H, W, 3].

        Raises:
            ValueError: if a model cannot take clips of this size.
        """
        scenes = {}
        if self.by_pixels is not None:
            scenes[PIXELS] = self.by_pixels(frames.to(self.device))
        return scenes if self.lgm is None else scenes | self.of_latents(self.encode(frames))


def open_readers(settings: EvaluateGeometrySettings, device: torch.device) -> GeometryReaders:
    """The models that settings name, loaded.

    Raises:
        ConfigError: if they do not fit each other, or the world's clips.
        FileNotFoundError, CorruptFileError: if a model is missing or damaged.
    """
    stride = settings.view_stride
    video: VideoBackbone | None = None
    lgm: LatentGeometryModel | None = None
    by_pixels: Callable[[Tensor], SceneGeometry] | None = None
    identity: dict[str, Any] = {}
    if settings.lgm_path is not None:
        video = load_video_backbone(settings.base_model, device=device)
        check_latent_model(settings, video)
        lgm = LatentGeometryModel.from_pretrained(settings.lgm_path).to(device)
        identity["lgm"] = weights_fingerprint(lgm)
        identity["autoencoder"] = video.latent_spec.fingerprint
    if settings.geometry_model is not None:
        geometry = load_geometry_backbone(settings.geometry_model).to(device)
        identity["geometry_model"] = weights_fingerprint(geometry)
        # Beside a latent model the uncut one sees what the latents stand for, on the same raster.
        by_pixels = (
            StridedViews(geometry, stride) if video is None else KeyFrameTeacher(geometry, video.latent_spec)
        )
    return GeometryReaders(device, stride, by_pixels, lgm, video, identity)


def check_latent_model(settings: EvaluateGeometrySettings, video: VideoBackbone) -> None:
    """Makes sure that the latent geometry model, its autoencoder and the clips fit; loads no weights.

    Raises:
        ConfigError: if they do not.
        FileNotFoundError, CorruptFileError: if the model is missing or damaged.
    """
    assert settings.lgm_path is not None
    spec, raster = video.latent_spec, settings.raster
    try:
        LatentGeometryModel.check_saved(settings.lgm_path, spec, settings.base_model)
        if settings.clips == WORLD:
            spec.latent_shape(raster.num_frames, raster.height, raster.width)
    except CorruptFileError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if settings.view_stride != spec.temporal_stride:
        raise ConfigError(
            f"view_stride is {settings.view_stride}, but the latent geometry model has one view in "
            f"{spec.temporal_stride} frames; set --view-stride {spec.temporal_stride}"
        )
