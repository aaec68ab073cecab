"""Measures a family's base models on held-out clips of the world, whose geometry is known exactly."""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.config import ConfigError, WorldEvaluateSettings, canonical_name, resolve_model
from vggrpo.config.models import ModelKind
from vggrpo.data import Prompt
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
from vggrpo.training.pretrain.card import Measured, geometry_card, video_card
from vggrpo.training.pretrain.contact_sheet import draw_contact_sheet
from vggrpo.training.pretrain.fault_ranking import fault_figures, fault_rows, measure_faults
from vggrpo.training.pretrain.frechet_sets import FrechetSets, frechet_figures, frechet_rows
from vggrpo.training.pretrain.measures import Instruments, Measures, clip_measures, sample_measures
from vggrpo.training.pretrain.provenance import packaged_trainings, trainings_of_runs
from vggrpo.training.pretrain.samples import SampleMaker
from vggrpo.training.pretrain.summary import (
    Columns,
    Figures,
    autoencoder_rows,
    geometry_rows,
    summarise,
    text_table,
    video_rows,
)
from vggrpo.training.pretrain.teacher import Teacher
from vggrpo.training.rewards import build_rewards
from vggrpo.training.runtime import choose_device
from vggrpo.training.sources import world_prompts
from vggrpo.world import KEY_STRIDE, render_clips, sample_scene

SPLIT = "test"
SHEET_CLIPS = 16
CARD = "README.md"


def evaluate_world(settings: WorldEvaluateSettings) -> tuple[str, list[Path]]:
    """Measures, and writes the folder `settings.output` completely or not at all.

    evaluation.json: the figures; clips.json, faults.json, samples.json: the measurements behind them, by
    column; contact_sheet.png of generated videos and faults.png of planted faults; video/README.md and
    geometry/README.md: the model cards, with `settings.write_cards` in the models' own folders as well.

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
        scenes = [sample_scene(SPLIT, index) for index in range(settings.num_faulty)]
        faults = columns(measure_faults(tools, scenes, settings, output / "faults.png"))
        samples, frames = measure_samples(tools, prompts, settings)
        captions = [prompt.text for prompt in prompts[:SHEET_CLIPS]]
        draw_contact_sheet(frames[:SHEET_CLIPS], captions, output / "contact_sheet.png")
        models = identities(tools, folders["geometry"])
        figures = summarise(clips, samples)
        figures["faults"] = fault_figures(faults, settings.fault_severity)
        frechet = measure_frechet(tools, models, settings)
        for name, measures in (("clips", clips), ("faults", faults), ("samples", samples)):
            write_json(output / f"{name}.json", columns_to_json(measures))
        write_json(output / "evaluation.json", {"models": models, **figures, "frechet": frechet})
        rows = {
            "autoencoder": autoencoder_rows(figures["autoencoder"]),
            "geometry model": geometry_rows(figures["geometry"]) + fault_rows(figures["faults"]),
            "video model": video_rows(figures["video"]) + frechet_rows(frechet),
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
    if settings.feature_cache is None:
        shutil.rmtree(feature_folder(settings), ignore_errors=True)
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
    if video.latent_spec.temporal_stride != KEY_STRIDE:
        raise ConfigError(
            f"video is {settings.video}, whose autoencoder has a temporal stride of "
            f"{video.latent_spec.temporal_stride}; the world's key frames are one in {KEY_STRIDE}"
        )
    return Instruments(video, Teacher(geometry, video, device), build_rewards(settings.rewards))


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


def measure_samples(
    tools: Instruments, prompts: Sequence[Prompt], settings: WorldEvaluateSettings
) -> tuple[Columns, Tensor]:
    """`sample_measures` of one video per prompt, and the videos [N, T, H, W, 3] in [0, 1]."""
    make = SampleMaker(tools.video, settings)
    parts: list[Measures] = []
    frames: list[Tensor] = []
    with progress("generate videos", total=len(prompts), unit="video") as bar:
        for start in range(0, len(prompts), settings.batch_size):
            batch = prompts[start : start + settings.batch_size]
            seeds = [derive_seed(settings.seed, "world evaluate", prompt.id) for prompt in batch]
            frames.append(make([prompt.text for prompt in batch], seeds))
            parts.append(sample_measures(frames[-1], tools))
            bar.advance(len(batch))
    return columns(parts), torch.cat(frames)


def measure_frechet(
    tools: Instruments, models: Mapping[str, Any], settings: WorldEvaluateSettings
) -> Figures | None:
    """`frechet_figures`, or None if the settings leave them out."""
    if settings.num_frechet == 0:
        return None
    return frechet_figures(FrechetSets(tools, SPLIT, settings, models, feature_folder(settings)))


def feature_folder(settings: WorldEvaluateSettings) -> Path:
    """Where the features of the Fréchet distances are kept."""
    return settings.feature_cache or settings.output.with_name(f"{settings.output.name}-features")


def columns(parts: Sequence[Measures]) -> Columns:
    """Measures of successive batches, joined."""
    return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}


def columns_to_json(measures: Columns) -> dict[str, list[float | None]]:
    """Plain lists, None for what could not be measured."""
    return {
        name: [value if math.isfinite(value) else None for value in np.asarray(values).tolist()]
        for name, values in measures.items()
    }


def identities(tools: Instruments, geometry_folder: Path) -> dict[str, Any]:
    """Fingerprints of what was measured."""
    geometry = {path.name: file_sha256(path) for path in sorted(geometry_folder.glob("*.safetensors"))}
    return {"video": tools.video.identity(), "geometry": geometry}


def measured(settings: WorldEvaluateSettings, rows: list[tuple[str, str]]) -> Measured:
    """Rows of a card, with the circumstances."""
    clips = settings.clips
    return Measured(
        rows,
        settings.num_clips,
        settings.num_faulty,
        settings.num_samples,
        settings.infer_steps,
        settings.cfg_scale,
        (clips.num_frames, clips.height, clips.width),
    )
