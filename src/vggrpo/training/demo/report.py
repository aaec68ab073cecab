"""The demo's report: that of its training, with what the runs before it have left on disk."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vggrpo.backbones import load_geometry_backbone
from vggrpo.config import FindLayerSettings, LGMSettings, TrainSettings
from vggrpo.evaluation import EvaluationRecords, KeyFrameTeacher, RewardTiming, time_reward_paths
from vggrpo.evaluation.report import LayerSearchData, Stage, write_report
from vggrpo.io import read_json
from vggrpo.lgm import LatentGeometryModel
from vggrpo.training.demo.scenes import scene_pairs
from vggrpo.training.lgm import LAYER_SEARCH
from vggrpo.training.report import run_report
from vggrpo.training.rewards import build_rewards
from vggrpo.training.run_files import records_file
from vggrpo.training.runtime import choose_device, open_video_model

TIMING_BATCH = 4
PAIRS_PER_KIND = 3
STAGE_WORDS = {
    "layer search": "fits a connector at every stitch point and compares them on held-out clips",
    "latent geometry model": "makes its clips and distils the model on them, against the uncut one on pixels",
    "VGGRPO": "aligns the policy, with evaluations on held-out prompts before, during and after",
    "report": "times both reward paths; this page, made after that, is not counted",
}


@dataclass(frozen=True)
class DemoRuns:
    """The settings of the demo's three runs, each naming its folder."""

    find_layer: FindLayerSettings
    train_lgm: LGMSettings
    train: TrainSettings


def write_demo_report(runs: DemoRuns, seconds: Mapping[str, float], command: str, path: Path) -> Path:
    """Writes the report of finished runs.

    Args:
        runs: what ran.
        seconds: by stage, how long it took.
        command: the command line.
        path: of the HTML file.
    """
    began = time.monotonic()
    train, lgm = runs.train, runs.train_lgm
    before = EvaluationRecords.load(records_file(train.output, 0))
    search = read_json(runs.find_layer.output / f"{LAYER_SEARCH}.json")
    entered_at = LatentGeometryModel.from_pretrained(train.lgm_path).stitch_point
    timing = time_rewards(train)
    spent = dict(seconds)
    spent["report"] = spent.get("report", 0.0) + time.monotonic() - began
    teacher = key_frame_teacher(train)
    data = run_report(train, train.iterations, teacher, torch.device("cpu"), PAIRS_PER_KIND)
    data = replace(
        data,
        title=f"VGGRPO on the {train.base_model} family",
        facts=replace(
            data.facts,
            stitch_point=entered_at,
            real_clips=lgm.real_clips,
            generated_clips=lgm.generated_clips,
        ),
        command=command,
        settings={
            "find-layer": runs.find_layer.model_dump(mode="json"),
            "train-lgm": lgm.model_dump(mode="json"),
            **data.settings,
        },
        stages=[Stage(name, STAGE_WORDS[name], value) for name, value in spent.items()],
        scenes=scene_pairs(train, before, teacher),
        layer_search=LayerSearchData.from_search(search, entered_at),
        timing=timing,
        remarks=(
            f"The figures are of the model {train.base_model} at {train.num_frames} frames of "
            f"{train.height}x{train.width} pixels, after this run's training. They say nothing about others.",
            *data.remarks,
        ),
    )
    return write_report(data, path)


def key_frame_teacher(train: TrainSettings) -> KeyFrameTeacher:
    """The uncut geometry model of a run, on the CPU."""
    spec = open_video_model(train.base_model, train, torch.device("cpu")).latent_spec
    return KeyFrameTeacher(load_geometry_backbone(train.geometry_model), spec)


def time_rewards(train: TrainSettings) -> RewardTiming:
    """Both reward paths on the same latents, in turns."""
    device = choose_device(train.device)
    video = open_video_model(train.base_model, train, device)
    geometry = load_geometry_backbone(train.geometry_model).to(device)
    lgm = LatentGeometryModel.from_pretrained(train.lgm_path).to(device)
    shape = video.latent_shape(train.num_frames, train.height, train.width)
    latents = torch.randn(TIMING_BATCH, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    return time_reward_paths(
        latents,
        lgm,
        video.decode_latents,
        KeyFrameTeacher(geometry, video.latent_spec),
        build_rewards(train.rewards),
    )
