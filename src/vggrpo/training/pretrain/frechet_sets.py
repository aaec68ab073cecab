"""Sets of clips whose Fréchet distances say how real a video model's samples look to the geometry model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggrpo.config import WorldEvaluateSettings
from vggrpo.data import ClipCache
from vggrpo.evaluation import PrincipalComponents, frechet_distance, place_on_scale
from vggrpo.io import derive_seed
from vggrpo.training.pretrain.measures import Instruments
from vggrpo.training.pretrain.samples import SampleMaker
from vggrpo.training.pretrain.summary import Figures, Rows, number, plain
from vggrpo.training.sources import text_hash
from vggrpo.world import SceneSpec, render_clips, sample_scene

FEATURES = "features"
THIRDS = {"axes": 0, "reference": 1, "real": 2}
"""Real clips that share nothing: those that the axes are fitted to, those that all others are compared with,
and those whose scenes and captions the other sets have."""
COMPARED = ("real", "autoencoded", "samples", "noise")
SHARD_SIZE = 32
"""Clips whose features an interruption costs at most."""


class FrechetSets:
    """The features of all sets, computed in shards that are kept in a folder.

    Clip i of a third of the split is its scene 3 i + place of the third: a larger number of clips begins with
    the same ones.

    Args:
        tools: the models.
        split: of the world.
        settings: of the command.
        identities: fingerprints of the models, by which kept features know theirs.
        folder: of the kept features.
    """

    def __init__(
        self,
        tools: Instruments,
        split: str,
        settings: WorldEvaluateSettings,
        identities: Mapping[str, Any],
        folder: Path,
    ) -> None:
        self._tools, self._split, self._settings = tools, split, settings
        self._folder = folder
        self._samples = SampleMaker(tools.video, settings)
        first_scenes = text_hash(repr(sample_scene(split, index)) for index in range(len(THIRDS)))
        common = {
            "geometry": identities["geometry"],
            "clips": settings.clips.model_dump(),
            "scenes": f"{split} {first_scenes}",
        }
        autoencoder = {"autoencoder": tools.video.latent_spec.fingerprint}
        sampler = {
            "video": identities["video"],
            "infer_steps": settings.infer_steps,
            "cfg_scale": settings.cfg_scale,
            "precision": settings.precision,
        }
        seed = {"seed": settings.seed}
        self._makers: dict[str, tuple[Callable[[range], Tensor], dict[str, Any]]] = {
            third: (partial(self._real, third), common) for third in THIRDS
        } | {
            "autoencoded": (self._autoencoded, common | autoencoder),
            "samples": (self._sampled, common | seed | sampler),
            "noise": (self._noise, common | seed | autoencoder),
        }

    def features(self, name: str) -> Tensor:
        """[N, F] of the set "axes", "reference", or one of `COMPARED`.

        Raises:
            ConfigError: if the user's folder keeps features of other models or settings.
        """
        make, key = self._makers[name]
        count, batch_size = self._settings.num_frechet, self._settings.batch_size

        def batches(start: int) -> Iterator[Mapping[str, Tensor]]:
            for first in range(start, count, batch_size):
                yield {FEATURES: make(range(first, min(first + batch_size, count)))}

        cache = ClipCache.build(
            self._folder / name,
            batches,
            key=key,
            num_clips=count,
            shard_size=SHARD_SIZE,
            rebuild=self._settings.feature_cache is None,
            description=f"{FEATURES}, {name}",
        )
        return cache.batch(range(count))[FEATURES]

    def _scenes(self, third: str, indices: Sequence[int]) -> list[SceneSpec]:
        return [sample_scene(self._split, len(THIRDS) * index + THIRDS[third]) for index in indices]

    def _real(self, third: str, indices: range) -> Tensor:
        raster = self._settings.clips.model_dump()
        return self._tools.teacher.features(
            render_clips(self._scenes(third, indices), views="keys", **raster).frames
        )

    @torch.no_grad()
    def _autoencoded(self, indices: range) -> Tensor:
        video, raster = self._tools.video, self._settings.clips.model_dump()
        frames = render_clips(self._scenes("real", indices), **raster).frames
        decoded = video.decode_latents(video.encode_video(frames)).float().cpu().clamp(0, 1)
        return self._seen(decoded)

    def _sampled(self, indices: range) -> Tensor:
        captions = [scene.caption for scene in self._scenes("real", indices)]
        return self._seen(self._samples(captions, self._seeds(indices)))

    def _noise(self, indices: range) -> Tensor:
        return self._seen(self._samples.undenoised(self._seeds(indices)))

    def _seeds(self, indices: range) -> list[int]:
        return [derive_seed(self._settings.seed, "world evaluate", "frechet", index) for index in indices]

    def _seen(self, frames: Tensor) -> Tensor:
        return self._tools.teacher.features(self._tools.teacher.key_frames(frames))


def frechet_figures(sets: FrechetSets) -> Figures:
    """How far the sets `COMPARED` are from the reference clips, in the principal components of the "axes".

    `distances`: squared Fréchet distances; `places`: where they lie between real clips (0) and noise (1).
    """
    axes = PrincipalComponents.fit(sets.features("axes").numpy())
    reference = axes(sets.features("reference").numpy())
    distances = {name: frechet_distance(axes(sets.features(name).numpy()), reference) for name in COMPARED}
    return {
        "clips": len(reference),
        "components": reference.shape[1],
        "distances": {name: number(distance) for name, distance in distances.items()},
        "places": {
            name: number(place_on_scale(distance, distances["real"], distances["noise"]))
            for name, distance in distances.items()
        },
    }


def frechet_rows(figures: Figures | None) -> Rows:
    """Those figures in words; of None that they were not measured."""
    title = "Fréchet distance from real clips, 0 % other real clips, 100 % decoded noise"
    if figures is None:
        return [(title, "not measured")]
    distances, places = figures["distances"], figures["places"]
    place, autoencoded = (
        "-" if places[name] is None else f"{places[name]:.1%}".replace("%", " %")
        for name in ("samples", "autoencoded")
    )
    return [
        (title, f"samples {place}; autoencoded clips {autoencoded}"),
        (
            f"raw distances, {figures['components']} principal components of the geometry model's features, "
            f"n = {figures['clips']:,}",
            ", ".join(f"{name} {plain(distances[name], 2)}" for name in COMPARED),
        ),
    ]
