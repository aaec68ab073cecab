"""Measures the gate of a finished latent geometry model on held-out clips."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.backbones import VideoBackbone, load_geometry_backbone
from vggrpo.config import LGMSettings
from vggrpo.data import ClipCache
from vggrpo.evaluation import (
    ClipQuality,
    Interval,
    KeyFrameTeacher,
    LGMGate,
    NoisePoint,
    NoiseResponse,
    bootstrap_mean,
    noise_response,
    rank_agreement,
    steady_shaky_auc,
)
from vggrpo.geometry import SceneGeometry
from vggrpo.io import ProgressBar, make_generator, progress
from vggrpo.lgm import LatentGeometryModel, agreement_where_seen
from vggrpo.rewards import SceneReward
from vggrpo.training.lgm_data import teacher_scene, weights_fingerprint
from vggrpo.training.pretrain.measures import Measures, reward_values
from vggrpo.training.rewards import CAMERA_MOTION, build_rewards
from vggrpo.training.runtime import open_video_model
from vggrpo.training.sources import WorldVideos, held_out_prompts, open_videos

NOISE_LEVELS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Standard deviations of latent noise, as shares of that of the latents' channel."""

Columns = dict[str, Tensor]
"""Values of all clips by name, [N]; NaN where one could not be measured."""


@dataclass(frozen=True)
class Readings:
    """The two ways from latents to geometry, and what is read off either."""

    lgm: LatentGeometryModel
    video: VideoBackbone
    teacher: KeyFrameTeacher
    rewards: Mapping[str, SceneReward]

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self.video.device

    def seen_by_lgm(self, latents: Tensor) -> SceneGeometry:
        """The model's scenes of latents [B, C, T, H, W]."""
        return self.lgm(latents)

    def seen_by_teacher(self, latents: Tensor) -> SceneGeometry:
        """The teacher's scenes of the decoded latents."""
        return self.teacher(self.video.decode_latents(latents))

    def values(self, prefix: str, scene: SceneGeometry) -> Measures:
        """Every reward as "<prefix>/<name>", [B] on the CPU."""
        return {f"{prefix}/{name}": value for name, value in reward_values(scene, self.rewards).items()}


@torch.no_grad()
def measure_gate(
    settings: LGMSettings, model: LatentGeometryModel, generated: ClipCache, real: ClipCache
) -> LGMGate:
    """The gate of `model`, as it is used: saved, LoRA merged, loaded again.

    Args:
        settings: those that the model was made with.
        model: on the device to measure on.
        generated: held-out clips made by the video model, of which the first `gate_clips` are used.
        real: held-out real clips, of which all are used.
    """
    device = next(model.parameters()).device
    video = open_video_model(settings.base_model, settings, device)
    geometry = load_geometry_backbone(settings.geometry_model).to(device)
    readings = Readings(
        model, video, KeyFrameTeacher(geometry, video.latent_spec), build_rewards(settings.rewards)
    )
    total = settings.gate_clips + len(real) + settings.noise_clips
    with progress("measure gate", total=total, unit="clip") as bar:
        gate_clips = batches(generated, settings.gate_clips, settings.batch_size, bar)
        on_generated = measure_clips(readings, gate_clips, from_latents=True)
        real_clips = batches(real, len(real), settings.batch_size, bar)
        on_real = measure_clips(readings, real_clips, from_latents=False)
        under_noise = measure_under_noise(readings, generated, settings, bar)
    num_prompts = len(held_out_prompts(settings))
    prompts = [clip % num_prompts for clip in range(settings.gate_clips)]
    return LGMGate(
        weights=weights_fingerprint(model),
        base_model=settings.base_model,
        geometry_model=settings.geometry_model,
        clip=(settings.num_frames, settings.height, settings.width),
        options=settings.rewards.model_dump(mode="json"),
        generated=clip_quality(on_generated, readings.rewards, prompts, settings.seed),
        real=clip_quality(on_real, readings.rewards, None, settings.seed),
        robustness=noise_points(under_noise, readings.rewards, prompts, settings.seed),
        steady_shaky_auc=separation_of_real_clips(on_real, settings),
    )


def batches(
    cache: ClipCache, count: int, size: int, bar: ProgressBar
) -> Iterator[tuple[range, dict[str, Tensor]]]:
    """The first `count` clips, `size` at once, with their numbers; `bar` advances after each batch."""
    for start in range(0, count, size):
        numbers = range(start, min(start + size, count))
        yield numbers, cache.batch(numbers)
        bar.advance(len(numbers))


def measure_clips(
    readings: Readings, clips: Iterator[tuple[range, dict[str, Tensor]]], from_latents: bool
) -> Columns:
    """Rewards "lgm/<name>", "teacher/<name>" and "repeated/<name>" of clips, and their "error/<name>".

    Args:
        readings: the models.
        clips: latents, and the teacher's geometry of the clips' video.
        from_latents: whether that video is the decoded latents (generated clips). Then it is encoded and
            decoded once more for the teacher to see again; of real clips the decoded latents are that
            already.
    """
    columns: dict[str, list[Tensor]] = defaultdict(list)
    for _, batch in clips:
        latents = batch["latents"].to(readings.device)
        student, teacher = readings.seen_by_lgm(latents), teacher_scene(batch).to(readings.device)
        if from_latents:
            latents = readings.video.encode_video(readings.video.decode_latents(latents))
        errors = agreement_where_seen(student, teacher)
        measured = {
            **readings.values("lgm", student),
            **readings.values("teacher", teacher),
            **readings.values("repeated", readings.seen_by_teacher(latents)),
            **{f"error/{name}": value.cpu() for name, value in errors.items()},
        }
        for name, value in measured.items():
            columns[name].append(value)
    return {name: torch.cat(parts) for name, parts in columns.items()}


def measure_under_noise(
    readings: Readings, cache: ClipCache, settings: LGMSettings, bar: ProgressBar
) -> dict[float, Columns]:
    """By level of noise: "lgm/<name>" and "teacher/<name>" of perturbed latents, of the first `noise_clips`.

    A clip has the same noise at every level, drawn from the run's seed and the clip's number.
    """
    if not settings.noise_clips:
        return {}
    device = readings.device
    std = channel_std(cache[clip]["latents"] for clip in range(settings.noise_clips)).to(device)
    parts: dict[float, list[Measures]] = defaultdict(list)
    for numbers, batch in batches(cache, settings.noise_clips, settings.batch_size, bar):
        latents = batch["latents"].to(device)
        generators = [make_generator(settings.seed, "gate-noise", number) for number in numbers]
        noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators]).to(device)
        for level in NOISE_LEVELS:
            perturbed = latents + level * std * noise
            # Without noise the teacher's reading is the reference itself.
            teacher = readings.seen_by_teacher(perturbed) if level else teacher_scene(batch).to(device)
            parts[level].append(
                readings.values("lgm", readings.seen_by_lgm(perturbed)) | readings.values("teacher", teacher)
            )
    return {
        level: {name: torch.cat([part[name] for part in of_level]) for name in of_level[0]}
        for level, of_level in parts.items()
    }


def channel_std(latents: Iterable[Tensor]) -> Tensor:
    """Standard deviation of each channel over latents [..., C, T, H, W] of any sizes, [C, 1, 1, 1]."""
    by_channel = (z.double().movedim(-4, 0).flatten(1) for z in latents)
    parts = [(z.shape[1], z.sum(dim=1), z.square().sum(dim=1)) for z in by_channel]
    counts, sums, squares = zip(*parts, strict=True)
    mean, square = (torch.stack(total).sum(dim=0) / sum(counts) for total in (sums, squares))
    return (square - mean.square()).clamp_min(0).sqrt().float()[:, None, None, None]


def clip_quality(
    columns: Columns, rewards: Mapping[str, SceneReward], clusters: list[int] | None, seed: int
) -> ClipQuality:
    """The statistics of clips, with intervals that resample `clusters`."""
    return ClipQuality(
        rewards={
            name: rank_agreement(
                columns[f"lgm/{name}"],
                columns[f"teacher/{name}"],
                columns[f"repeated/{name}"],
                clusters,
                seed,
            )
            for name in rewards
        },
        errors={
            name.removeprefix("error/"): bootstrap_mean(finite(values), clusters, seed=seed)
            for name, values in columns.items()
            if name.startswith("error/")
        },
    )


def noise_points(
    levels: Mapping[float, Columns], rewards: Mapping[str, SceneReward], prompts: list[int], seed: int
) -> dict[str, tuple[NoisePoint, ...]]:
    """The robustness curves of every reward; none without levels."""
    if not levels:
        return {}
    clean = levels[0.0]
    clusters = prompts[: len(next(iter(clean.values())))]

    def response(columns: Columns, source: str, name: str) -> NoiseResponse:
        return noise_response(columns[f"{source}/{name}"], clean[f"teacher/{name}"], clusters, seed)

    return {
        name: tuple(
            NoisePoint(level, response(columns, "lgm", name), response(columns, "teacher", name))
            for level, columns in levels.items()
        )
        for name in rewards
    }


def separation_of_real_clips(columns: Columns, settings: LGMSettings) -> dict[str, Interval]:
    """The steady-shaky AUC of the motion reward; empty where it is not known which clips are shaky."""
    videos = open_videos(settings, len(columns[f"lgm/{CAMERA_MOTION}"]), held_out=True)
    if not isinstance(videos, WorldVideos):
        return {}
    is_shaky = videos.is_shaky()
    sources = {"lgm": "lgm", "teacher": "teacher", "autoencoded": "repeated"}
    return {
        name: steady_shaky_auc(columns[f"{source}/{CAMERA_MOTION}"], is_shaky, settings.seed)
        for name, source in sources.items()
    }


def finite(values: Tensor) -> Tensor:
    """The same with NaN for what is infinite."""
    return torch.where(values.isfinite(), values, torch.nan)
