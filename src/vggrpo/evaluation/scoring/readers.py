"""Clips to scenes: through a latent geometry model, or through an uncut one that sees frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from vggrpo.backbones import (
    GeometryBackbone,
    LatentSpec,
    VideoBackbone,
    load_geometry_backbone,
    load_video_backbone,
)
from vggrpo.backbones.geometry_loading import locate_weights
from vggrpo.config import ConfigError, CorruptFileError, ScoreSettings, resolve_model
from vggrpo.evaluation.scoring.clips import SavedLatents, is_latent_file, read_latents
from vggrpo.evaluation.videos.base import Clip, Frames, Video
from vggrpo.evaluation.videos.decoding import decode_clip
from vggrpo.evaluation.videos.geometry import GeometryViews
from vggrpo.geometry import SceneGeometry
from vggrpo.io import file_sha256
from vggrpo.io.manifest import MANIFEST_NAME
from vggrpo.lgm import LatentGeometryModel, read_latent_spec


@dataclass(frozen=True, eq=False)
class SceneView:
    """What a model sees in a clip."""

    scene: SceneGeometry
    """A batch of one, of T views."""
    view_frames: tuple[int, ...]
    """The video frame that each view shows."""
    images: NDArray[np.uint8] | None
    """[T, h, w, 3] of the views; None where nothing was decoded."""
    facts: dict[str, Any]
    """For the record: `source` ("video" or "latents"), `frames`, `height`, `width`, `fps`."""
    notes: tuple[str, ...] = ()


class SceneReader(Protocol):
    """Reads one clip after the other."""

    def identity(self) -> dict[str, Any]:
        """What determines the scenes, for JSON."""

    def read(self, clip: Clip) -> SceneView:
        """The scene of a video or of latents.

        Raises:
            FileNotFoundError, PermissionError, CorruptFileError, ValueError: with the reason why the clip
                cannot be scored.
        """


@dataclass(frozen=True, eq=False)
class LatentReader:
    """By a latent geometry model; videos are encoded for it, latents are taken as they are."""

    lgm: LatentGeometryModel
    video: VideoBackbone | None
    """None where all clips are latents."""
    device: torch.device
    max_bytes: int
    weights: str

    def identity(self) -> dict[str, Any]:
        """See `SceneReader`."""
        return {"space": "latent", "lgm": self.weights}

    @torch.no_grad()
    def read(self, clip: Clip) -> SceneView:
        """See `SceneReader`."""
        spec = self.lgm.latent_spec
        if is_latent_file(clip.path):
            saved = read_latents(clip.path)
            check_autoencoder(saved, spec)
            scene = self.lgm(saved.latents.to(self.device))
            return SceneView(scene, _frames_of(spec, scene), None, _facts_of_latents(saved, spec))
        assert self.video is not None
        video, notes = decode_clip(clip.path, self.max_bytes)
        spec.latent_shape(*video.frames.shape[:3])
        latents = self.video.encode_video(_as_floats(video.frames).to(self.device))
        scene = self.lgm(latents)
        views = _frames_of(spec, scene)
        images = _shrunk(video.frames[list(views)], scene.height, scene.width)
        return SceneView(scene, views, images, _facts_of_video(video), notes)


@dataclass(frozen=True, eq=False)
class PixelReader:
    """By an uncut geometry model on frames; latents are decoded for it."""

    geometry: GeometryBackbone
    views: GeometryViews
    video: VideoBackbone | None
    """None where all clips are videos."""
    device: torch.device
    max_bytes: int
    weights: str

    def identity(self) -> dict[str, Any]:
        """See `SceneReader`."""
        views = {"stride": self.views.stride, "views": self.views.most, "side": self.views.side}
        return {"space": "rgb", "geometry_model": self.weights, **views}

    @torch.no_grad()
    def read(self, clip: Clip) -> SceneView:
        """See `SceneReader`."""
        notes: tuple[str, ...] = ()
        if is_latent_file(clip.path):
            saved = read_latents(clip.path)
            assert self.video is not None
            check_autoencoder(saved, self.video.latent_spec)
            decoded = self.video.decode_latents(saved.latents.to(self.device))[0]
            video = Video((decoded.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy(), saved.fps)
            facts = _facts_of_latents(saved, self.video.latent_spec)
        else:
            video, notes = decode_clip(clip.path, self.max_bytes)
            facts = _facts_of_video(video)
        images = self.views(video, clip)
        stride = self.views.stride_of(len(video.frames))
        if stride != self.views.stride:
            notes += (
                f"{len(video.frames)} frames are seen at a stride of {stride}, to have no more than "
                f"{self.views.most} views",
            )
        scene = self.geometry(_as_floats(images).to(self.device))
        frames = tuple(range(0, len(video.frames), stride))
        return SceneView(scene, frames, images, facts, notes)


def open_reader(settings: ScoreSettings, clips: Sequence[Clip], device: torch.device) -> SceneReader:
    """The reader that settings describe, with no more models than the clips need.

    Raises:
        ConfigError: if a model does not exist, or the models do not fit each other.
        FileNotFoundError, CorruptFileError: if a model is missing or damaged.
    """
    max_bytes = round(settings.max_clip_gigabytes * 1e9)
    has_latents = any(is_latent_file(clip.path) for clip in clips)
    has_videos = not all(is_latent_file(clip.path) for clip in clips)
    if settings.space == "latent":
        assert settings.lgm_path is not None
        read_latent_spec(settings.lgm_path)
        video = None
        if has_videos:
            video = load_video_backbone(settings.base_model, device=device)
            try:
                LatentGeometryModel.check_saved(settings.lgm_path, video.latent_spec, settings.base_model)
            except CorruptFileError:
                raise
            except ValueError as error:
                raise ConfigError(str(error)) from error
        lgm = LatentGeometryModel.from_pretrained(settings.lgm_path).to(device)
        weights = file_sha256(settings.lgm_path / MANIFEST_NAME)
        return LatentReader(lgm, video, device, max_bytes, weights)
    assert settings.geometry_model is not None
    weights = file_sha256(locate_weights(resolve_model(settings.geometry_model, "geometry")))
    geometry = load_geometry_backbone(settings.geometry_model).to(device)
    views = GeometryViews(settings.view_stride, settings.max_views, settings.max_side, geometry.patch_size)
    video = load_video_backbone(settings.base_model, device=device) if has_latents else None
    return PixelReader(geometry, views, video, device, max_bytes, weights)


def check_autoencoder(saved: SavedLatents, spec: LatentSpec) -> None:
    """Makes sure that latents are of the autoencoder that `spec` describes, as far as their file tells.

    Raises:
        ValueError: if they are not.
    """
    channels = saved.latents.shape[1]
    if channels == spec.channels and saved.autoencoder in (None, spec.fingerprint):
        return
    origin = f" of the autoencoder {saved.autoencoder[:12]}" if saved.autoencoder else ""
    raise ValueError(
        f"it has latents of {channels} channels{origin}, but {spec.channels} channels of the autoencoder "
        f"{spec.fingerprint[:12]} are expected; score it with the models that it was made by"
    )


def _frames_of(spec: LatentSpec, scene: SceneGeometry) -> tuple[int, ...]:
    return tuple(spec.view_frames(scene.num_views))


def _as_floats(frames: NDArray[np.uint8]) -> torch.Tensor:
    """[T, H, W, 3] bytes to [1, T, H, W, 3] in [0, 1]."""
    return torch.from_numpy(frames)[None].float() / 255


def _shrunk(images: Frames, height: int, width: int) -> Frames:
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images])


def _facts_of_video(video: Video) -> dict[str, Any]:
    frames, height, width, _ = video.frames.shape
    return {"source": "video", "frames": frames, "height": height, "width": width, "fps": video.fps}


def _facts_of_latents(saved: SavedLatents, spec: LatentSpec) -> dict[str, Any]:
    """With the size of the video that they stand for."""
    *_, views, height, width = saved.latents.shape
    return {
        "source": "latents",
        "frames": (views - 1) * spec.temporal_stride + 1,
        "height": height * spec.spatial_stride,
        "width": width * spec.spatial_stride,
        "fps": saved.fps,
    }
