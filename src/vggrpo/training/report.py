"""The report of a run of `vggrpo train`, from what the run has left on disk; also the core of the demo's."""

import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vggrpo.config import TrainSettings
from vggrpo.evaluation import (
    GATE_FILE,
    Alarm,
    EvaluationRecords,
    LGMGate,
    compare,
    reward_agreement,
)
from vggrpo.evaluation.report import (
    Clipping,
    Curve,
    ReportData,
    RunFacts,
    Stage,
    VideoPair,
    fidelity_figures,
    video_pair,
    write_report,
)
from vggrpo.geometry import SceneGeometry
from vggrpo.io import RunFolder, read_json, read_video
from vggrpo.io.runs import CONFIG_NAME
from vggrpo.training.histograms import CLIPPED, RATIO
from vggrpo.training.run_files import REPORT_NAME, records_file, sample_video
from vggrpo.training.watch import ALARMS_FILE

Teacher = Callable[[torch.Tensor], SceneGeometry]
PAIRS_PER_KIND, MOST_KINDS = 2, 3
SHOWN_HEIGHT = 360
"""Taller videos are shrunk for the page: it is written often, and holds all of them."""
SHOWN_METRICS = ("teacher/camera_motion", "teacher/reprojection", "flow_jerk")
CURVES = (
    ("reward/camera_motion/mean", "training rewards", "camera motion, by the LGM"),
    ("reward/reprojection/mean", "training rewards", "reprojection, by the LGM"),
    ("reward/camera_motion/std", "spread of the rewards within a group", "camera motion"),
    ("reward/reprojection/std", "spread of the rewards within a group", "reprojection"),
    ("evaluation/lgm/camera_motion", "held-out camera motion", "by the LGM"),
    ("evaluation/teacher/camera_motion", "held-out camera motion", "by the teacher on decoded video"),
    ("evaluation/lgm/reprojection", "held-out reprojection", "by the LGM"),
    ("evaluation/teacher/reprojection", "held-out reprojection", "by the teacher on decoded video"),
    ("evaluation/flow_jerk", "held-out flow jerk (lower is steadier)", "dominant optical flow"),
    ("evaluation/flow_magnitude", "held-out motion amount", "optical flow, pixels per frame"),
    ("policy/kl", "KL to the base model", "mean over steps and elements"),
    ("policy/clip_frac", "clipped share of the steps", "all denoising steps"),
    ("time/rollout", "seconds an iteration, by phase", "rollout"),
    ("time/score", "seconds an iteration, by phase", "score"),
    ("time/update", "seconds an iteration, by phase", "update"),
)
"""(metric, panel, label) of the curves."""
PHASE_WORDS = {
    "time/rollout": ("rollout", "draws the groups of every iteration"),
    "time/score": ("score", "reads the rewards of all samples from their latents"),
    "time/update": ("update", "takes the optimizer steps on every set of rollouts"),
    "time/evaluation": ("evaluation", "samples, decodes and measures the held-out prompts"),
}
NOT_BEFORE = "nothing to compare with the base model before the next evaluation"
LEFT_OUT = {
    "layer_search": "`vggrpo find-layer` makes it, before any training",
    "timing": "`vggrpo demo` measures it; a training does not stop for it",
    "scenes": "`vggrpo reconstruct` and `vggrpo view --export` make them from the videos in samples/",
}


def write_run_report(train: TrainSettings, iteration: int, teacher: Teacher, device: torch.device) -> Path:
    """Writes `report.html` of a run after its newest evaluation, in place of an older one.

    Args:
        train: the run; its folder is `output`.
        iteration: of the evaluation.
        teacher: the uncut geometry model: frames [1, T, H, W, 3] on `device` to their geometry.
        device: of the teacher.
    """
    return write_report(run_report(train, iteration, teacher, device), train.output / REPORT_NAME)


def run_report(
    train: TrainSettings,
    iteration: int,
    teacher: Teacher,
    device: torch.device,
    pairs_per_kind: int = PAIRS_PER_KIND,
) -> ReportData:
    """What a run itself tells, after an evaluation; arguments as for `write_run_report`."""
    run = RunFolder(train.output, train)
    before = EvaluationRecords.load(records_file(train.output, 0))
    after = EvaluationRecords.load(records_file(train.output, iteration))
    metrics = [record for record in run.read_metrics() if record["step"] <= iteration]
    histograms = [entry for entry in run.read_histograms() if entry[0] <= iteration]
    finished = iteration >= train.iterations
    keys = choose_samples(train, iteration, before, after, pairs_per_kind) if iteration else []
    gated = (train.lgm_path / GATE_FILE).is_file()
    agreement = {"base model": reward_agreement(before)}
    absent = dict(LEFT_OUT)
    if iteration:
        agreement["aligned model" if finished else "policy so far"] = reward_agreement(after)
    else:
        absent |= dict.fromkeys(("videos", "figures", "clipping"), NOT_BEFORE)
    if not keys:
        absent["videos"] = absent.get("videos", "the sample videos are no longer in samples/")
    clipping = Clipping.from_histograms(histograms, RATIO, CLIPPED, train.eval_every)
    if clipping is None:
        absent.setdefault("clipping", "no transition took part in an update, or the run kept no histograms")
    if not gated:
        absent["gate"] = f"the latent geometry model in {train.lgm_path} has none"
    curves_ = curves(metrics)
    if not curves_:
        absent["curves"] = "no iteration is done yet"
    state = () if finished else (f"Iteration {iteration} of {train.iterations}: the training goes on.",)
    return ReportData(
        title=f"VGGRPO on {_short(train.base_model)}",
        facts=run_facts(train, iteration),
        command=f"vggrpo train --recipe {shlex.quote(str(train.output / CONFIG_NAME))} --output NEW_FOLDER",
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        settings={"train": train.model_dump(mode="json")},
        machine=machine_facts(),
        stages=phase_times(metrics),
        comparisons=compare(before, after) if iteration else (),
        videos=[show_pair(train, iteration, before, after, key, teacher, device) for key in keys],
        video_choice=_choice_words(train, pairs_per_kind),
        curves=curves_,
        clipping=clipping,
        agreement=agreement,
        gate=LGMGate.load(train.lgm_path) if gated else None,
        alarms=raised_alarms(train.output),
        num_evaluations=-(-iteration // train.eval_every),
        fidelity=fidelity_figures(before),
        remarks=(*state, "One seed. The intervals are over prompts, not over trainings."),
        left_out=absent,
    )


def run_facts(train: TrainSettings, iterations: int) -> RunFacts:
    """The quantities that the report's words are made of, after `iterations` iterations."""
    return RunFacts(
        base_model=_short(train.base_model),
        geometry_model=_short(train.geometry_model),
        num_frames=train.num_frames,
        height=train.height,
        width=train.width,
        fps=train.fps,
        rewards=tuple(name for name, weight in train.reward_weights.model_dump().items() if weight > 0),
        train_prompts=train.num_prompts,
        iterations=iterations or None,
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


def _short(model: str) -> str:
    """A name as it is, a path by its last part."""
    return Path(model).name


def curves(records: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Every curve whose metric is logged."""
    logged = {name for record in records for name in record}
    return [
        Curve.from_records(records, metric, panel, label)
        for metric, panel, label in CURVES
        if metric in logged
    ]


def phase_times(records: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """How long each phase took in all, as the report's stages."""
    seconds = {name: sum(record.get(name) or 0.0 for record in records) for name in PHASE_WORDS}
    return [Stage(*PHASE_WORDS[name], total) for name, total in seconds.items() if total]


def choose_samples(
    train: TrainSettings,
    iteration: int,
    before: EvaluationRecords,
    after: EvaluationRecords,
    pairs_per_kind: int,
) -> list[tuple[str, int]]:
    """Samples by a fixed rule: the first prompts of each kind, then the greatest gain and the greatest loss.

    Samples whose videos somebody has deleted are left out.
    """
    kinds, keys = before.columns["kind"], before.keys
    chosen: list[tuple[str, int]] = []
    for kind in list(dict.fromkeys(kinds))[:MOST_KINDS]:
        first = [key for key, of in zip(keys, kinds, strict=True) if of == kind and key[1] == 0]
        chosen += first[:pairs_per_kind]
    metric = "teacher/camera_motion"
    places = {key: i for i, key in enumerate(after.keys)}
    change = after.values(metric)[[places[key] for key in keys]] - before.values(metric)
    order = np.nan_to_num(change).argsort(kind="stable")
    chosen += [keys[int(order[-1])], keys[int(order[0])]]
    return [
        key
        for key in dict.fromkeys(chosen)
        if all(sample_video(train.output, step, key).is_file() for step in (0, iteration))
    ]


def show_pair(
    train: TrainSettings,
    iteration: int,
    before: EvaluationRecords,
    after: EvaluationRecords,
    key: tuple[str, int],
    teacher: Teacher,
    device: torch.device,
) -> VideoPair:
    """The videos of a sample by the base model and after `iteration` iterations, with the cameras in them."""
    clips = [read_video(sample_video(train.output, step, key))[0] for step in (0, iteration)]
    with torch.no_grad():
        scenes = [teacher((torch.as_tensor(clip).to(device).float() / 255)[None]) for clip in clips]
    base, policy = (torch.as_tensor(_shrunk(clip)).float() / 255 for clip in clips)
    return video_pair(before, after, key, base, policy, SHOWN_METRICS, (scenes[0], scenes[1]))


def _shrunk(frames: np.ndarray) -> np.ndarray:
    height, width = frames.shape[1:3]
    if height <= SHOWN_HEIGHT:
        return frames
    size = (round(width * SHOWN_HEIGHT / height), SHOWN_HEIGHT)
    return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in frames])


def _choice_words(train: TrainSettings, pairs_per_kind: int) -> str:
    words = (
        f"The first {pairs_per_kind} held-out prompts of each kind with their first noise, then the "
        "samples whose camera motion, by the teacher on decoded video, improved and worsened most."
    )
    if train.height > SHOWN_HEIGHT:
        words += f" Shown, and its speed measured, at a height of {SHOWN_HEIGHT} of {train.height} pixels."
    return words


def raised_alarms(run: Path) -> list[Alarm]:
    """All alarms of a run, in the order in which they were raised."""
    return [Alarm(**entry) for entry in read_json(run / ALARMS_FILE)]


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
