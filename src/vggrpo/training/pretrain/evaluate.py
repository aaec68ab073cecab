"""Measures a family's base models on held-out clips of the world, whose geometry is known exactly."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vggrpo.backbones import GeometryBackbone, VideoBackbone, load_geometry_backbone, load_video_backbone
from vggrpo.config import ConfigError, WorldEvaluateSettings, canonical_name, resolve_model
from vggrpo.config.models import ModelKind
from vggrpo.data import Prompt
from vggrpo.evaluation import KeyFrameTeacher
from vggrpo.geometry import SceneGeometry
from vggrpo.io import (
    atomic_folder,
    derive_seed,
    file_sha256,
    progress,
    settings_to_yaml,
    write_json,
    write_text,
)
from vggrpo.io.runs import CONFIG_NAME
from vggrpo.lgm import token_grid
from vggrpo.rollout import sample_ode
from vggrpo.training.pretrain.card import Measured, geometry_card, video_card
from vggrpo.training.pretrain.contact_sheet import draw_contact_sheet
from vggrpo.training.pretrain.measures import Instruments, Measures, clip_measures, sample_measures
from vggrpo.training.pretrain.provenance import packaged_trainings, trainings_of_runs
from vggrpo.training.pretrain.summary import (
    Columns,
    autoencoder_rows,
    geometry_rows,
    summarise,
    text_table,
    video_rows,
)
from vggrpo.training.rewards import build_rewards
from vggrpo.training.runtime import choose_device
from vggrpo.training.sources import world_prompts
from vggrpo.world import render_clips, sample_scene

SPLIT = "test"
SHEET_CLIPS = 16
CARD = "README.md"


def evaluate_world(settings: WorldEvaluateSettings) -> tuple[str, list[Path]]:
    """Measures, and writes the folder `settings.output` completely or not at all.

    evaluation.json: the figures; clips.json, samples.json: the measurements behind them, by column;
    contact_sheet.png; video/README.md and geometry/README.md: the model cards, with `settings.write_cards` in
    the models' own folders as well.

    Returns:
        The figures as a table, and the paths of the cards (those in the models' folders if written there).

    Raises:
        ConfigError: if a model has no local folder, the clips do not fit the models, or `train_runs` are
            wrong.
        FileExistsError: if the output folder exists.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    folders = {
        "video": model_folder(settings.video, "video"),
        "geometry": model_folder(settings.geometry, "geometry"),
    }
    runs = trainings_of_runs(settings.train_runs)
    tools = load_instruments(settings)
    with atomic_folder(settings.output) as output:
        write_text(output / CONFIG_NAME, settings_to_yaml(settings))
        prompts = world_prompts(SPLIT, settings.num_samples)
        clips = measure_clips(tools, settings)
        samples, frames = measure_samples(tools, prompts, settings)
        captions = [prompt.text for prompt in prompts[:SHEET_CLIPS]]
        draw_contact_sheet(frames[:SHEET_CLIPS], captions, output / "contact_sheet.png")
        figures = summarise(clips, samples)
        write_json(output / "clips.json", columns_to_json(clips))
        write_json(output / "samples.json", columns_to_json(samples))
        write_json(output / "evaluation.json", {"models": identities(tools, folders["geometry"])} | figures)
        rows = {
            "autoencoder": autoencoder_rows(figures["autoencoder"]),
            "geometry model": geometry_rows(figures["geometry"]),
            "video model": video_rows(figures["video"]),
        }
        cards = {
            "video": video_card(
                Path(settings.video).name,
                folders["video"],
                packaged_trainings(canonical_name(settings.video, "video")) | runs,
                measured(settings, rows["autoencoder"] + rows["video model"]),
            ),
            "geometry": geometry_card(
                Path(settings.geometry).name,
                folders["geometry"],
                packaged_trainings(canonical_name(settings.geometry, "geometry")) | runs,
                measured(settings, rows["geometry model"]),
            ),
        }
        for kind, card in cards.items():
            write_text(output / kind / CARD, card)
    if not settings.write_cards:
        return text_table(list(rows.items())), [settings.output / kind / CARD for kind in cards]
    for kind, card in cards.items():
        write_text(folders[kind] / CARD, card)
    return text_table(list(rows.items())), [folders[kind] / CARD for kind in cards]


def model_folder(name: str, kind: ModelKind) -> Path:
    """The local folder of a model.

    Raises:
        ConfigError: if it has none.
    """
    folder = resolve_model(name, kind).folder
    if folder is None:
        raise ConfigError(
            f"{kind} is {name}, a repository on a hub; world evaluate measures models that were trained on "
            "the world: give a name with packaged weights, or a folder"
        )
    return folder


def load_instruments(settings: WorldEvaluateSettings) -> Instruments:
    """The models on their device.

    Raises:
        ConfigError: if the clips do not fit the video model, or the geometry model's raster is another.
    """
    device, clips = choose_device(settings.device), settings.clips
    video = load_video_backbone(settings.video, device=device, precision=settings.precision)
    geometry = load_geometry_backbone(settings.geometry).to(device)
    try:
        _, _, latent_height, latent_width = video.latent_shape(clips.num_frames, clips.height, clips.width)
    except ValueError as error:
        raise ConfigError(f"clips: {error}") from error
    raster = tuple(geometry.patch_size * side for side in token_grid(latent_height, latent_width))
    if raster != (clips.height, clips.width):
        raise ConfigError(
            f"clips are {clips.height}x{clips.width}, but for latents of {latent_height}x{latent_width} the "
            f"geometry model sees {raster[0]}x{raster[1]}: exact geometry needs the same raster"
        )
    return Instruments(video, Teacher(geometry, video, device), build_rewards(settings.rewards))


class Teacher:
    """The geometry model on the key frames of whole clips, wherever it runs: CPU tensors in and out."""

    def __init__(self, geometry: GeometryBackbone, video: VideoBackbone, device: torch.device) -> None:
        self._key_frames, self._device = KeyFrameTeacher(geometry, video.latent_spec), device

    def __call__(self, frames: Tensor) -> SceneGeometry:
        return self._key_frames(frames.to(self._device)).to("cpu")


def measure_clips(tools: Instruments, settings: WorldEvaluateSettings) -> Columns:
    """`clip_measures` of the split's first `num_clips` clips."""
    parts: list[Measures] = []
    raster = settings.clips.model_dump()
    with progress("measure held-out clips", total=settings.num_clips, unit="clip") as bar:
        for start in range(0, settings.num_clips, settings.batch_size):
            indices = range(start, min(start + settings.batch_size, settings.num_clips))
            clips = render_clips([sample_scene(SPLIT, index) for index in indices], **raster)
            parts.append(clip_measures(clips, indices, tools, settings.seed))
            bar.advance(len(indices))
    return columns(parts)


@torch.no_grad()
def measure_samples(
    tools: Instruments, prompts: Sequence[Prompt], settings: WorldEvaluateSettings
) -> tuple[Columns, Tensor]:
    """`sample_measures` of one video per prompt, and the videos [N, T, H, W, 3] in [0, 1]."""
    video, clips = tools.video, settings.clips
    shape = video.latent_shape(clips.num_frames, clips.height, clips.width)
    schedule = video.schedule(settings.infer_steps)
    negative = video.encode_prompts([""])[0] if settings.cfg_scale != 1 else None
    parts: list[Measures] = []
    frames: list[Tensor] = []
    with progress("generate videos", total=len(prompts), unit="video") as bar:
        for start in range(0, len(prompts), settings.batch_size):
            batch = prompts[start : start + settings.batch_size]
            latents = sample_ode(
                video,
                video.encode_prompts([prompt.text for prompt in batch]),
                schedule,
                seeds=[derive_seed(settings.seed, "world evaluate", prompt.id) for prompt in batch],
                latent_shape=shape,
                cfg_scale=settings.cfg_scale,
                negative_prompt_embeds=negative,
            )
            frames.append(video.decode_latents(latents).float().cpu().clamp(0, 1))
            parts.append(sample_measures(frames[-1], tools))
            bar.advance(len(batch))
    return columns(parts), torch.cat(frames)


def columns(parts: Sequence[Measures]) -> Columns:
    """Measures of successive batches, joined."""
    return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}


def columns_to_json(measures: Columns) -> dict[str, list[float | None]]:
    """Plain lists, None for what could not be measured."""
    return {
        name: [value if math.isfinite(value) else None for value in np.asarray(values).tolist()]
        for name, values in measures.items()
    }


def identities(tools: Instruments, geometry_folder: Path) -> dict[str, object]:
    """Fingerprints of what was measured."""
    geometry = {path.name: file_sha256(path) for path in sorted(geometry_folder.glob("*.safetensors"))}
    return {"video": tools.video.identity(), "geometry": geometry}


def measured(settings: WorldEvaluateSettings, rows: list[tuple[str, str]]) -> Measured:
    """Rows of a card, with the circumstances."""
    clips = settings.clips
    return Measured(
        rows,
        settings.num_clips,
        settings.num_samples,
        settings.infer_steps,
        settings.cfg_scale,
        (clips.num_frames, clips.height, clips.width),
    )
