"""The plan of `vggrpo train`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vggrpo.backbones.pipelines.lora import add_lora
from vggrpo.config import TrainSettings
from vggrpo.data import load_prompts, prompt_set_names
from vggrpo.flow import SigmaSchedule
from vggrpo.lgm import LatentGeometryModel
from vggrpo.lgm.model import CONFIG_FILE
from vggrpo.rollout import RolloutSteps
from vggrpo.training.plan.counting import (
    FLOAT32,
    Cost,
    Known,
    empty_weights,
    module_bytes,
    num_parameters,
    once,
    optimizer_bytes,
    without_values,
)
from vggrpo.training.plan.models import (
    GeometryPlan,
    VideoPlan,
    geometry_on_meta,
    saved_on_meta,
    stitched_on_meta,
)
from vggrpo.training.plan.plan import (
    GIB,
    PAPER_GPU_HOURS,
    Assumptions,
    ModelSize,
    Phase,
    Plan,
    Remedy,
    efficiency_changes,
    problems,
    stacked,
)
from vggrpo.training.ranks import Ranks, require_shares

GPUS_OF_A_MACHINE = 8
"""That share the weights with parallel hsdp."""


@dataclass(frozen=True)
class TrainCosts:
    """Of the computations that training consists of."""

    rollout: Cost
    """A velocity of `rollout_batch` samples."""
    score: Cost
    """The scenes of `rollout_batch` samples."""
    update: Cost
    """A transition of `update_batch` samples: forward, the base model's where there is a KL, backward."""
    decode: Cost
    """One video."""
    teach: Cost
    """The uncut model on `rollout_batch` videos."""


class TrainPlanner:
    """Counts a training's computations, and what they add up to."""

    def __init__(self, settings: TrainSettings, gpus: int = 1) -> None:
        """
        Raises:
            ConfigError: if models do not exist, or do not fit the sizes or each other.
        """
        s = self.settings = settings
        self.gpus = gpus
        self.guided = s.cfg_scale != 1.0
        clip = (s.num_frames, s.height, s.width)
        self.video = VideoPlan(s.base_model, s, clip, s.gradient_checkpointing)
        add_lora(self.video.transformer, s.lora_rank, s.lora_alpha, s.lora_targets, s.seed)
        self.lgm_is_there = (s.lgm_path / CONFIG_FILE).is_file()
        self.lgm = GeometryPlan(self._latent_geometry_model(), self.video)
        self.teacher = GeometryPlan(geometry_on_meta(s.geometry_model), self.video)

    def _latent_geometry_model(self) -> LatentGeometryModel:
        if self.lgm_is_there:
            return saved_on_meta(self.settings.lgm_path, self.video)
        geometry = geometry_on_meta(self.settings.geometry_model)
        return stitched_on_meta(geometry, geometry.stitch_points[0].name, self.video)

    def costs(self, known: Known | None = None) -> TrainCosts:
        """Measures every computation once; those in `known`, of other memory settings of the same run, not
        again."""
        s, video, memory = self.settings, self.video, self.settings.efficiency
        precision, known = (s.precision, s.weights), {} if known is None else known
        update = (s.update_batch, s.gradient_checkpointing, memory.offload_activations, memory.cfg_batched)
        with without_values():
            empty_weights(video.transformer, video.vae, self.lgm.model, self.teacher.model)
            return TrainCosts(
                rollout=self._of_a_team(
                    once(
                        known,
                        ("rollout", precision, s.rollout_batch, memory.cfg_batched),
                        lambda: video.denoise(s.rollout_batch, self.guided),
                    )
                ),
                score=once(known, ("score", s.rollout_batch), lambda: self.lgm.look(s.rollout_batch)),
                update=self._of_a_team(
                    once(
                        known,
                        ("update", precision, update),
                        lambda: video.denoise_and_backpropagate(s.update_batch, self.guided, bool(s.kl_coef)),
                    )
                ),
                decode=once(known, ("decode", memory.tiled_decoding), video.decode),
                teach=once(known, ("teach", s.rollout_batch), lambda: self.teacher.look(s.rollout_batch)),
            )

    @property
    def samples(self) -> int:
        """Of an iteration, on the GPU that has most."""
        teams = self.gpus // self.settings.context_parallel
        return self.settings.prompts_per_rollout * -(-self.settings.group_size // teams)

    def _of_a_team(self, whole: Cost) -> Cost:
        """A GPU's part of a computation whose tokens a team shares out; what is not of tokens is small."""
        size = self.settings.context_parallel
        return Cost(whole.flops / size, whole.peak // size)

    @property
    def _velocities(self) -> float:
        """Evaluated in an iteration's rollouts, in the mean over the places to which a window moves."""
        s = self.settings
        places = s.window_places
        schedule = SigmaSchedule.linear(s.train_steps)  # any levels: only their number counts

        def of_group(start: int) -> int:
            steps = RolloutSteps(
                schedule,
                (start, len(s.sde_window)),
                ode_solver=s.ode_solver,
                ode_stride=s.ode_stride,
            )
            return steps.forwards(self.samples // s.prompts_per_rollout, s.shared_noise)

        return s.prompts_per_rollout * sum(map(of_group, places)) / len(places)

    @property
    def trajectory_bytes(self) -> int:
        """An iteration's stored states and clean latents, of one GPU's process."""
        states = (len(self.settings.sde_window) + 1) * self._latent_bytes
        if self.settings.trajectory_dtype == "bfloat16":
            states //= 2
        return self.samples * (states + self._latent_bytes)

    @property
    def _latent_bytes(self) -> int:
        return int(torch.Size(self.video.latent_shape).numel()) * FLOAT32

    def phases(self, costs: TrainCosts) -> list[Phase]:
        """Of an iteration."""
        s = self.settings
        rollout = self._velocities * costs.rollout.flops / s.rollout_batch
        update = costs.update.flops / s.update_batch
        updates = len(s.sde_window) * update
        if s.shared_noise:  # one pass of the window's first step serves a batch
            members = -(-self.samples // s.prompts_per_rollout // s.updates_per_rollout)
            updates -= update * (1 - -(-members // s.update_batch) / members)
        if s.off_window_coef:
            share = s.group_size // s.updates_per_rollout
            held = (s.off_window_members or share) / share
            updates += held * update
            if not s.kl_coef:  # then the update has no pass of the base model
                updates += held * costs.rollout.flops / s.rollout_batch
        resident = self.resident_bytes
        return [
            Phase("rollout", rollout, resident + costs.rollout.peak),
            Phase("LGM", self.samples * costs.score.flops / s.rollout_batch, resident + costs.score.peak),
            Phase("update", self.samples * updates, resident + costs.update.peak),
        ]

    def evaluation(self, costs: TrainCosts) -> Phase:
        """A held-out sample."""
        s = self.settings
        sampling = s.infer_steps * costs.rollout.flops
        flops = (sampling + costs.score.flops + costs.teach.flops) / s.rollout_batch + costs.decode.flops
        resident = self.resident_bytes + module_bytes(self.teacher.model)
        video = 3 * s.num_frames * s.height * s.width * FLOAT32
        looking = video + max(costs.score.peak, costs.teach.peak)
        watching = module_bytes(self.video.vae) + max(s.rollout_batch * costs.decode.peak, looking)
        if s.efficiency.offload:
            watching -= module_bytes(self.video.transformer)
        worst = max(costs.rollout.peak, watching)
        return Phase("evaluation", flops, resident + worst)

    @property
    def resident_bytes(self) -> int:
        """On the GPU all the time: policy, its average, optimizer and latent geometry model."""
        models = self.denoiser_bytes + module_bytes(self.lgm.model)
        average = self.lora_bytes if self.settings.ema_decay else 0
        return models + optimizer_bytes(self.video.transformer) + average

    @property
    def denoiser_bytes(self) -> int:
        """Of the denoiser on each GPU: its part of the frozen weights, with two blocks gathered, and the
        LoRA."""
        whole = module_bytes(self.video.transformer)
        if self.settings.parallel == "ddp" or self.gpus == 1:
            return whole
        sharers = min(self.gpus, GPUS_OF_A_MACHINE) if self.settings.parallel == "hsdp" else self.gpus
        block = max(module_bytes(block) for block in self.video.transformer.blocks)
        return self.lora_bytes + (whole - self.lora_bytes) // sharers + 2 * block

    @property
    def lora_bytes(self) -> int:
        """Of the trained weights."""
        return num_parameters(self.video.transformer, trainable=True) * FLOAT32

    @property
    def num_held_out(self) -> int | None:
        """Held-out prompts; None if their file is not here."""
        return _count(self.settings.evaluation_prompts, self.settings.num_evaluation_prompts)


def _count(source: str, asked_for: int | None) -> int | None:
    if asked_for is not None:
        return asked_for
    is_here = source in prompt_set_names() or Path(source).is_file()
    return len(load_prompts(source)) if is_here else None


def plan_training(settings: TrainSettings, assumptions: Assumptions) -> Plan:
    """What the training of `settings` costs on such GPUs. Reads no weights.

    Raises:
        ConfigError: if models do not exist, or do not fit the sizes or each other, or the GPUs cannot
            share the groups.
    """
    require_shares(Ranks(size=assumptions.gpus), settings)
    planner, known = TrainPlanner(settings, assumptions.gpus), Known()
    costs = planner.costs(known)
    phases, evaluation = planner.phases(costs), planner.evaluation(costs)

    def measured(changed: TrainSettings) -> list[Phase]:
        other = TrainPlanner(changed, assumptions.gpus)
        costs = other.costs(known)
        return [*other.phases(costs), other.evaluation(costs)]

    return Plan(
        title=f"train {settings.base_model}, clips of {_clip(planner)}, {assumptions.gpus} GPUs",
        models=[
            ModelSize(
                "policy",
                num_parameters(planner.video.transformer),
                num_parameters(planner.video.transformer, trainable=True),
            ),
            ModelSize("LGM" if planner.lgm_is_there else "LGM (at most)", num_parameters(planner.lgm.model)),
            ModelSize("uncut geometry model", num_parameters(planner.teacher.model)),
            ModelSize("autoencoder", num_parameters(planner.video.vae)),
        ],
        phases=phases,
        per="iteration",
        figures=_figures(planner, phases, evaluation, assumptions),
        problems=problems([*phases, evaluation], remedies(settings, assumptions.gpus), measured, assumptions),
        assumptions=assumptions,
    )


def remedies(settings: TrainSettings, gpus: int = 1) -> list[Remedy[TrainSettings]]:
    """Settings that need less memory on a GPU, each on top of those before, and that `gpus` GPUs can share.
    They change no result but by rounding, and the last one, tiles, the seams in decoded videos."""
    changes: list[tuple[str, dict[str, object]]] = []
    if not settings.gradient_checkpointing:
        changes.append(("--gradient-checkpointing", {"gradient_checkpointing": True}))
    share = settings.group_size // settings.updates_per_rollout
    for batch in reversed(range(1, max(settings.rollout_batch, settings.update_batch))):
        if share % batch == 0:
            flags = f"--rollout-batch {batch} --update-batch {batch}"
            changes.append((flags, {"rollout_batch": batch, "update_batch": batch}))
    if settings.weights == "float32":
        half: dict[str, object] = {"precision": "bfloat16", "weights": "bfloat16"}
        changes.append(("--precision bfloat16 --weights bfloat16", half))
    offload = () if settings.lockstep else ("offload",)
    names = ("cfg_batched", *offload, "offload_activations", "tiled_decoding")
    changes += efficiency_changes(settings.efficiency, names)
    return stacked(settings, changes, lambda changed: require_shares(Ranks(size=gpus), changed))


def _figures(
    planner: TrainPlanner, phases: Sequence[Phase], evaluation: Phase, assumptions: Assumptions
) -> dict[str, str]:
    s = planner.settings
    seconds = sum(assumptions.seconds(phase.flops) for phase in phases)
    place = {"cpu": "of host memory", "disk": "on disk"}[s.trajectory_storage]
    training_hours = s.iterations * seconds * assumptions.gpus / 3600
    figures = {
        "samples": f"{s.prompts_per_rollout * s.group_size} an iteration, {planner.samples} of them a GPU's",
        "trajectories": f"{planner.trajectory_bytes / GIB:.2f} GiB {place}, a GPU's share",
        "iteration": f"{seconds:,.1f} s; {s.updates_per_rollout * 3600 / seconds:,.1f} updates an hour",
        "training": f"{s.iterations} iterations, {training_hours:,.1f} GPU-hours",
    }
    if s.parallel != "ddp" and assumptions.gpus > 1:
        whole, held = module_bytes(planner.video.transformer), planner.denoiser_bytes
        figures["denoiser"] = f"{held / GIB:.2f} of {whole / GIB:.2f} GiB on each GPU ({s.parallel})"
    sample_hours = assumptions.seconds(evaluation.flops) / 3600
    if planner.num_held_out is None:
        figures["evaluation"] = (
            f"{sample_hours:.3f} GPU-hours a held-out sample; {s.evaluation_prompts} is not here to count"
        )
        total = training_hours
    else:
        samples = planner.num_held_out * s.evaluation_noises
        times = -(-s.iterations // s.eval_every) + 1
        total = training_hours + times * samples * sample_hours
        figures["evaluation"] = (
            f"{times} times {samples} held-out samples, {times * samples * sample_hours:,.1f} GPU-hours; "
            f"{evaluation.memory / GIB:.1f} GiB a GPU"
        )
    figures["in all"] = f"{total:,.1f} GPU-hours (the paper: {PAPER_GPU_HOURS})"
    if not planner.lgm_is_there:
        figures["LGM"] = (
            f"there is none in {s.lgm_path} yet; counted is {s.geometry_model} entered at its first stitch "
            "point, the most expensive one"
        )
    return figures


def _clip(planner: TrainPlanner) -> str:
    s = planner.settings
    return f"{s.num_frames}x{s.height}x{s.width}"
