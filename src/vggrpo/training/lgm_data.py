"""Clips to distil a latent geometry model on: latents, and the frames that the teacher sees.

Both real videos (encoded) and videos made by the base model (decoded) are needed: without generated latents
the model is blind to exactly the latents that it will have to judge.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vggrpo.backbones import GeometryBackbone, VideoBackbone
from vggrpo.config import LGMSettings, StitchSettings
from vggrpo.data import ClipCache, TextEmbeddingCache
from vggrpo.data.clips import MakeBatches
from vggrpo.geometry import SceneGeometry
from vggrpo.io import derive_seed
from vggrpo.lgm import per_clip, recorded_blocks, teacher_frames
from vggrpo.rollout import sample_ode
from vggrpo.training.sources import (
    held_out_prompts,
    open_videos,
    prompts_hash,
    training_prompts,
    video_batches,
)

TEACHER = "teacher/"
"""Prefix of the teacher's geometry among a cached clip's tensors."""
TEXT_BATCH = 32
"""Prompts embedded at once."""
SHARD_BYTES = 2**30
BYTES_PER_PIXEL = 36
"""Of a cached clip: three bytes of colour, and in float32 a point, a flow vector, depth and confidence."""


class ClipMaker:
    """Makes cached clips: latents [C, T, H, W], view frames as bytes [T, H, W, 3], and the teacher's
    geometry.
    """

    def __init__(
        self, video: VideoBackbone, geometry: GeometryBackbone, settings: StitchSettings, cache: Path
    ) -> None:
        self.video, self.geometry, self.settings, self.cache = video, geometry, settings, cache
        s = settings
        self.geometry_identity = weights_fingerprint(geometry)
        self.latent_shape = video.latent_shape(s.num_frames, s.height, s.width)

    def real(self, count: int, held_out: bool = False) -> ClipCache:
        """`count` real clips to train on, or to hold out."""
        s = self.settings
        videos = open_videos(s, count, held_out)

        def batches(start: int) -> Iterator[Mapping[str, Tensor]]:
            for frames in video_batches(videos, start, s.batch_size):
                frames = frames.to(self.video.device)
                yield self._clips(self.video.encode_video(frames), frames)

        key: dict[str, Any] = {"kind": "real", "videos": s.real_videos, "content": videos.identity()}
        if s.fps is not None:
            key["fps"] = s.fps
        return self._build("real", held_out, batches, count, key)

    def generated(self, count: int, settings: LGMSettings, held_out: bool = False) -> ClipCache:
        """`count` clips made by the base model, each from its own noise; held-out ones have other prompts."""
        s = settings
        prompts = held_out_prompts(s) if held_out else training_prompts(s)
        embeddings = TextEmbeddingCache(self.cache / "text", self.video)
        negative = embeddings.embed([""])[0].to(self.video.device) if s.cfg_scale != 1 else None
        schedule = self.video.schedule(s.infer_steps, self.latent_shape)
        stream = (s.seed, "lgm-clip", "held-out" if held_out else "train")

        def batches(start: int) -> Iterator[Mapping[str, Tensor]]:
            texts = list(dict.fromkeys(prompts[i % len(prompts)].text for i in range(start, count)))
            for first in range(0, len(texts), TEXT_BATCH):
                embeddings.embed(texts[first : first + TEXT_BATCH])
            # From here on they are read from the disk: the encoder is the largest part of the model.
            self.video.release("text_encoder")
            for first in range(start, count, s.batch_size):
                numbers = range(first, min(first + s.batch_size, count))
                embeds = embeddings.embed([prompts[i % len(prompts)].text for i in numbers])
                latents = sample_ode(
                    self.video,
                    embeds.to(self.video.device),
                    schedule,
                    seeds=[derive_seed(*stream, i) for i in numbers],
                    latent_shape=self.latent_shape,
                    cfg_scale=s.cfg_scale,
                    negative_prompt_embeds=negative,
                )
                yield self._clips(latents, self.video.decode_latents(latents))

        key = {
            "kind": "generated",
            "video_model": self.video.identity(),
            "prompts": prompts_hash(prompts),
            "steps": s.infer_steps,
            "cfg_scale": s.cfg_scale,
            "seed": s.seed,
        }
        return self._build("generated", held_out, batches, count, key)

    def block_states(self, clips: ClipCache) -> ClipCache:
        """What the teacher's transformer blocks hand on in these clips, [L, C] in float16 by block."""
        names = self.geometry.block_names(self.geometry.stitch_points[0].name)

        def batches(start: int) -> Iterator[Mapping[str, Tensor]]:
            size = self.settings.batch_size
            for first in range(start, len(clips), size):
                frames = clip_frames(clips.batch(range(first, min(first + size, len(clips)))))
                with torch.no_grad(), recorded_blocks(self.geometry, names) as states:
                    self.geometry(frames.to(self.video.device))
                yield {name: per_clip(state, len(frames)).half().cpu() for name, state in states.items()}

        return ClipCache.build(
            clips.folder.with_name(f"{clips.folder.name}-blocks"),
            batches,
            key={"clips": clips.key},
            num_clips=len(clips),
            shard_size=self._shard_size(),
            description=f"teacher's blocks, {clips.folder.name} clips",
        )

    def _clips(self, latents: Tensor, frames: Tensor) -> dict[str, Tensor]:
        views = teacher_frames(frames, self.video.latent_spec, self.geometry.patch_size)
        with torch.no_grad():
            scene = self.geometry(views)
        teacher = {TEACHER + name: tensor.cpu() for name, tensor in scene.as_dict().items()}
        as_bytes = (views.clamp(0, 1) * 255).round().to(torch.uint8)
        return {"latents": latents.cpu(), "frames": as_bytes.cpu(), **teacher}

    def _build(
        self, kind: str, held_out: bool, batches: MakeBatches, count: int, key: Mapping[str, Any]
    ) -> ClipCache:
        s = self.settings
        common = {
            "autoencoder": self.video.latent_spec.fingerprint,
            "geometry_model": self.geometry_identity,
            "clip": [s.num_frames, s.height, s.width],
        }
        name = f"{kind}-held-out" if held_out else kind
        return ClipCache.build(
            self.cache / name,
            batches,
            key=common | dict(key),
            num_clips=count,
            shard_size=self._shard_size(),
            description=f"{name} clips",
        )

    def _shard_size(self) -> int:
        """Clips of a file: as many as fit `SHARD_BYTES`, up to 64. An interruption costs at most so many."""
        _, views, height, width = self.latent_shape
        patch = self.geometry.patch_size
        pixels = views * -(-height // 2) * patch * -(-width // 2) * patch
        return max(1, min(64, SHARD_BYTES // (pixels * BYTES_PER_PIXEL)))


def weights_fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names and values of a module's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def clip_frames(batch: Mapping[str, Tensor]) -> Tensor:
    """The view frames of cached clips in [0, 1]."""
    return batch["frames"].float() / 255


def teacher_scene(batch: Mapping[str, Tensor]) -> SceneGeometry:
    """The teacher's geometry of cached clips [B, ...]."""
    return SceneGeometry.from_dict(
        {name.removeprefix(TEACHER): value for name, value in batch.items() if name.startswith(TEACHER)}
    )
