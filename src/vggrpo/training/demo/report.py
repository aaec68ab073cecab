"""The demo's report, assembled from what its runs have left on disk."""

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from vggrpo.backbones import load_geometry_backbone
from vggrpo.config import FindLayerSettings, LGMSettings, TrainSettings
from vggrpo.evaluation import (
    Alarm,
    EvaluationRecords,
    KeyFrameTeacher,
    LGMGate,
    RewardTiming,
    compare,
    reward_agreement,
    time_reward_paths,
)
from vggrpo.evaluation.report import (
    Curve,
    LayerSearchData,
    ReportData,
    RunFacts,
    Stage,
    VideoPair,
    fidelity_figures,
    video_pair,
    write_report,
)
from vggrpo.io import RunFolder, read_json, read_video
from vggrpo.lgm import LatentGeometryModel
from vggrpo.training.align import records_file, sample_video
from vggrpo.training.demo.scenes import scene_pairs
from vggrpo.training.lgm import LAYER_SEARCH
from vggrpo.training.rewards import CAMERA_MOTION, REPROJECTION, build_rewards
from vggrpo.training.runtime import choose_device, open_video_model
from vggrpo.training.watch import ALARMS_FILE

TIMING_BATCH = 4
PAIRS_PER_KIND = 3
SHOWN_METRICS = ("teacher/camera_motion", "teacher/reprojection", "flow_jerk")
STAGE_WORDS = {
    "layer search": "fits a connector at every stitch point and compares them on held-out clips",
    "latent geometry model": "makes its clips, starts the connector from a regression and distils the rest",
    "VGGRPO": "aligns the policy, with evaluations on held-out prompts before, during and after",
    "report": "times both reward paths and writes this page",
}
CURVES = (
    ("reward/camera_motion/mean", "training rewards", "camera motion, by the LGM"),
    ("reward/reprojection/mean", "training rewards", "reprojection, by the LGM"),
    ("evaluation/lgm/camera_motion", "held-out camera motion", "by the LGM"),
    ("evaluation/teacher/camera_motion", "held-out camera motion", "by the teacher on decoded video"),
    ("evaluation/lgm/reprojection", "held-out reprojection", "by the LGM"),
    ("evaluation/teacher/reprojection", "held-out reprojection", "by the teacher on decoded video"),
    ("evaluation/flow_jerk", "held-out flow jerk (lower is steadier)", "dominant optical flow"),
    ("evaluation/flow_magnitude", "held-out motion amount", "optical flow, pixels per frame"),
    ("policy/kl", "policy", "KL to the base model"),
    ("policy/clip_frac", "policy", "clipped share of the steps"),
)
"""(metric, panel, label) of the curves."""


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
    train = runs.train
    before = EvaluationRecords.load(records_file(train.output, 0))
    after = EvaluationRecords.load(records_file(train.output, train.iterations))
    search = read_json(runs.find_layer.output / f"{LAYER_SEARCH}.json")
    timing = time_rewards(train)
    spent = dict(seconds)
    spent["report"] = spent.get("report", 0.0) + time.monotonic() - began
    stages = [Stage(name, STAGE_WORDS[name], value) for name, value in spent.items()]
    data = ReportData(
        title=f"VGGRPO on the {train.base_model} family",
        facts=run_facts(runs, search["recommended"]),
        command=command,
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        settings={
            "find-layer": runs.find_layer.model_dump(mode="json"),
            "train-lgm": runs.train_lgm.model_dump(mode="json"),
            "train": train.model_dump(mode="json"),
        },
        machine=machine_facts(),
        stages=stages,
        comparisons=compare(before, after),
        videos=choose_videos(train, before, after),
        video_choice=(
            f"The first {PAIRS_PER_KIND} held-out prompts of each kind with their first noise, then the "
            "samples whose camera motion, by the teacher on decoded video, improved and worsened most."
        ),
        scenes=scene_pairs(train, before, key_frame_teacher(train)),
        curves=curves(train),
        layer_search=LayerSearchData.from_search(search),
        agreement={"base model": reward_agreement(before), "aligned model": reward_agreement(after)},
        gate=LGMGate.load(train.lgm_path),
        alarms=raised_alarms(train.output),
        num_evaluations=math.ceil(train.iterations / train.eval_every),
        fidelity=fidelity_figures(before),
        timing=timing,
        remarks=(
            f"The figures are of the model {train.base_model} at {train.num_frames} frames of "
            f"{train.height}x{train.width} pixels, after this run's training. They say nothing about others.",
            "One seed. The intervals are over prompts, not over trainings.",
        ),
    )
    return write_report(data, path)


def run_facts(runs: DemoRuns, stitch_point: str) -> RunFacts:
    """The quantities that the report's words are made of."""
    lgm, train = runs.train_lgm, runs.train
    return RunFacts(
        base_model=train.base_model,
        geometry_model=train.geometry_model,
        num_frames=train.num_frames,
        height=train.height,
        width=train.width,
        fps=train.fps,
        rewards=(CAMERA_MOTION, REPROJECTION),
        stitch_point=stitch_point,
        real_clips=lgm.real_clips,
        generated_clips=lgm.generated_clips,
        train_prompts=train.num_prompts,
        iterations=train.iterations,
        group_size=train.group_size,
        groups_per_iteration=train.prompts_per_rollout,
        denoising_steps=train.train_steps,
        stochastic_steps=len(train.sde_window),
        updates_per_rollout=train.updates_per_rollout,
        noise_scale=train.noise_scale,
        clip_eps=train.clip_eps,
        kl_coef=train.kl_coef,
        learning_rate=train.lr,
        lora_rank=train.lora_rank,
        held_out_prompts=train.num_evaluation_prompts,
        held_out_noises=train.evaluation_noises,
        evaluation_steps=train.infer_steps,
    )


def curves(train: TrainSettings) -> list[Curve]:
    """Every curve whose metric the run logged."""
    records = RunFolder(train.output, train).read_metrics()
    logged = {name for record in records for name in record}
    return [
        Curve.from_records(records, metric, panel, label)
        for metric, panel, label in CURVES
        if metric in logged
    ]


def choose_videos(
    train: TrainSettings, before: EvaluationRecords, after: EvaluationRecords
) -> list[VideoPair]:
    """Pairs by a fixed rule: the first prompts of each kind, then the greatest gain and the greatest loss."""
    kinds, keys = before.columns["kind"], before.keys
    chosen: list[tuple[str, int]] = []
    for kind in dict.fromkeys(kinds):
        first = [key for key, of in zip(keys, kinds, strict=True) if of == kind and key[1] == 0]
        chosen += first[:PAIRS_PER_KIND]
    metric = "teacher/camera_motion"
    places = {key: i for i, key in enumerate(after.keys)}
    change = torch.as_tensor(after.values(metric))[[places[key] for key in keys]] - torch.as_tensor(
        before.values(metric)
    )
    order = change.nan_to_num(0.0).argsort()
    chosen += [keys[int(order[-1])], keys[int(order[0])]]
    teacher = key_frame_teacher(train)
    pairs = []
    for key in dict.fromkeys(chosen):
        base, aligned = (
            _read_frames(sample_video(train.output, step, key)) for step in (0, train.iterations)
        )
        scenes = teacher(base[None]), teacher(aligned[None])
        pairs.append(video_pair(before, after, key, base, aligned, SHOWN_METRICS, scenes))
    return pairs


def raised_alarms(run: Path) -> list[Alarm]:
    """All alarms of a run, in the order in which they were raised."""
    return [Alarm(**entry) for entry in read_json(run / ALARMS_FILE)]


def key_frame_teacher(train: TrainSettings) -> KeyFrameTeacher:
    """The uncut geometry model of a run, on the CPU."""
    spec = open_video_model(train.base_model, train, torch.device("cpu")).latent_spec
    return KeyFrameTeacher(load_geometry_backbone(train.geometry_model), spec)


def _read_frames(path: Path) -> torch.Tensor:
    frames, _ = read_video(path)
    return torch.as_tensor(frames).float() / 255


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


def machine_facts() -> dict[str, str]:
    """What the figures were measured on."""
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
    }
    if torch.cuda.is_available():
        facts["GPU"] = torch.cuda.get_device_name()
    return {name: str(value) for name, value in facts.items()}


def processor_name() -> str:
    """The processor's name, as the operating system gives it."""
    info = Path("/proc/cpuinfo")
    names: Sequence[str] = []
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
    return names[0] if names else platform.processor() or platform.machine()
