"""Settings of `vggrpo train`: the policy's post-training."""

from typing import Annotated, ClassVar, Literal, Self

import tyro
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vggrpo.config.alarms import AlarmSettings
from vggrpo.config.base import RunSettings, SamplingRunSettings
from vggrpo.config.lgm_path import LGMPath
from vggrpo.config.rewards import RewardSettings, RewardWeights


class TrainSettings(SamplingRunSettings):
    """Post-trains a video model with rewards from a latent geometry model."""

    free_on_resume: ClassVar[frozenset[str]] = RunSettings.free_on_resume | {
        "stop_on_alarm",
        "lgm_floor",
        "gradient_checkpointing",
        "rank_timeout",
        "parallel",
        "context_parallel",
        "trajectory_storage",
        "keep_rollouts",
        "trackers",
        "tracker_project",
    }
    held_on_resume: ClassVar[frozenset[str]] = frozenset(
        {
            *("seed", "rewards", "evaluation_prompts"),
            *("num_evaluation_prompts", "evaluation_noises", "infer_steps", "cfg_scale", "negative_prompt"),
            *("num_frames", "height", "width", "flow_shift"),
        }
    )

    base_model: str = Field(
        description="video model: a name, a Wan or LTX pipeline folder of diffusers, or a repository"
    )
    geometry_model: str = Field(
        description="geometry model that checks decoded videos independently of the reward"
    )
    lgm_path: LGMPath = Field(
        description="latent geometry model: a folder (`vggrpo train-lgm`) or a name (micro)"
    )
    lgm_floor: float = Field(
        0.5,
        ge=0,
        le=1,
        description="least share of the ceiling that each reward's rank correlation must reach in the gate "
        "of the latent geometry model; 0 trains with any",
    )

    prompts: str = Field(description="training prompts: a .txt or .jsonl file, a set (all-train), or `world`")
    evaluation_prompts: str = Field(description="held-out prompts: a file, a set (all-test), or `world`")
    negative_prompt: str = Field("", description="prompt of the unconditional branch of the guidance")
    num_prompts: PositiveInt | None = Field(
        None, description="how many of the training prompts to use; all if unset"
    )
    num_evaluation_prompts: PositiveInt | None = Field(
        None, description="how many held-out prompts; all if unset"
    )

    num_frames: PositiveInt = Field(description="frames of a video, a multiple of the temporal stride plus 1")
    height: PositiveInt = Field(description="pixels")
    width: PositiveInt = Field(description="pixels")
    cfg_scale: float = Field(
        ge=1, description="classifier-free guidance in rollouts and evaluation; 1 is none"
    )

    fps: PositiveFloat = Field(16.0, description="frames per second at which sample videos are written")
    gradient_checkpointing: bool = Field(
        False,
        description="recompute the denoiser's blocks in the backward pass to save memory",
    )

    lora_rank: PositiveInt = 32
    lora_alpha: PositiveFloat = 64.0
    lora_targets: Literal["attention", "attention+ffn"] = "attention"
    lr: PositiveFloat = Field(1e-4, description="learning rate of AdamW, constant after the warm-up")
    warmup_steps: NonNegativeInt = Field(0, description="optimizer steps of linear warm-up")
    weight_decay: NonNegativeFloat = 1e-4
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    grad_clip: PositiveFloat = Field(1.0, description="largest gradient norm")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay, an iteration, of the LoRA's moving average, which is then what is evaluated and "
        "written; rollouts are drawn by the LoRA itself; 0 keeps none",
    )

    group_size: int = Field(64, ge=2, description="rollouts of one prompt that are compared with each other")
    prompts_per_rollout: PositiveInt = Field(1, description="groups an iteration")
    iterations: PositiveInt = Field(100, description="rollout-and-update rounds in all")
    updates_per_rollout: PositiveInt = Field(
        4,
        description="optimizer steps on the minibatches of one rollout set; from the second on clipping acts",
    )
    rollout_batch: PositiveInt = Field(8, description="samples denoised at once")
    update_batch: PositiveInt = Field(8, description="transitions in one backward pass")

    train_steps: int = Field(10, ge=2, description="denoising steps of a rollout")
    infer_steps: PositiveInt = Field(50, description="denoising steps in evaluation")
    transition: Literal["flow_sde", "dance_sde", "cps"] = Field(
        "flow_sde", description="kind of stochastic step"
    )
    noise_scale: PositiveFloat = Field(0.7, description="the paper's a")
    sde_window_start: NonNegativeInt = Field(
        0, description="first stochastic and trained step; of a window that moves, at its first place"
    )
    sde_window_length: PositiveInt | Literal["all"] = Field(
        "all", description="number of stochastic and trained steps; `all` is every one but the last"
    )
    sde_window_moves: Literal["never", "slides", "random"] = Field(
        "never",
        description="`slides`: the window starts one step later every `sde_window_stay` iterations, and "
        "after its last place at its first again; `random`: every iteration draws its place",
    )
    sde_window_stop: PositiveInt | None = Field(
        None, description="a window that moves stays before this step; by default before the last"
    )
    sde_window_stay: PositiveInt = Field(10, description="iterations at each place of a window that slides")
    shared_noise: bool = Field(
        False,
        description="start all members of a group from one noise; a rollout then computes the steps before "
        "the window, and the velocity from which members part in its first step, once, and an update that "
        "velocity once a batch",
    )
    ode_solver: Literal["euler", "heun", "unipc"] = Field(
        "euler",
        description="of the steps outside the window: euler, heun (two evaluations a step, second order) or "
        "unipc (one, second order)",
    )
    ode_stride: PositiveInt = Field(
        1, description="outside the window visit every n-th level only; higher orders bear more"
    )
    trajectory_storage: Literal["cpu", "disk"] = Field(
        "cpu",
        description="where states and clean latents of an iteration are kept: `cpu` memory, or `disk`, in "
        "the run folder, which makes memory independent of `group_size`",
    )
    trajectory_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="type of the stored states; they are rounded before they are stepped from and scored",
    )

    keep_rollouts: bool = Field(
        True,
        description="write finished rollouts to the run folder until their update is done, so that an "
        "interrupted iteration does not draw them again",
    )
    skip_nonfinite: bool = Field(
        False,
        description="leave samples out, and count them, that are not finite or have a reward, loss or "
        "gradient that is not, instead of stopping",
    )

    clip_eps: PositiveFloat = Field(1e-3, description="the ratio is clipped to [1 - clip_eps, 1 + clip_eps]")
    kl_coef: Annotated[
        NonNegativeFloat,
        tyro.conf.arg(aliases=["--kl-beta"]),
        Field(description="weight of the KL to the base model"),
    ] = 0.004
    off_window_coef: NonNegativeFloat = Field(
        0.0,
        description="weight of the squared distance to the base model's velocity at the noise levels outside "
        "the window, which neither the reward nor the KL sees",
    )
    off_window_sigma: float = Field(
        1.0, gt=0, le=1, description="noise levels below which off_window_coef holds"
    )
    off_window_members: NonNegativeInt = Field(
        0, description="members of a group, in every update, that off_window_coef holds; 0: all of them"
    )
    advantage_clip: PositiveFloat = Field(5.0, description="advantages are clipped to +- this")
    skip_flat_groups: bool = Field(
        True,
        description="leave groups in which no member has an advantage out of the update: they cost no pass, "
        "and do not pull to the base model either",
    )
    reward_weights: RewardWeights = RewardWeights()
    rewards: RewardSettings = RewardSettings()

    evaluation_noises: int = Field(2, ge=2, description="samples of each held-out prompt")
    eval_every: PositiveInt = Field(10, description="iterations between evaluations on the held-out prompts")
    checkpoint_every: PositiveInt = Field(10, description="iterations between checkpoints")
    keep_checkpoints: PositiveInt = Field(2, description="newest checkpoints to keep")
    rank_timeout: PositiveFloat = Field(
        30.0, description="minutes that a process may keep the others waiting, under torchrun"
    )
    parallel: Literal["ddp", "fsdp", "hsdp"] = Field(
        "ddp",
        description="under torchrun: each GPU holds all frozen weights of the denoiser (`ddp`), a part of "
        "them (`fsdp`), or a part with the others of its machine (`hsdp`)",
    )
    context_parallel: PositiveInt = Field(
        1, description="under torchrun: GPUs that compute each clip together, each a part of its tokens"
    )
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        ("tensorboard",), description="where to watch the run besides its folder; none if empty"
    )
    tracker_project: str = Field("vggrpo", description="project under which W&B and Trackio show the run")
    alarms: AlarmSettings = AlarmSettings()
    stop_on_alarm: bool = Field(False, description="end the run when an alarm is raised")

    @property
    def sde_window(self) -> range:
        """The stochastic and trained steps of a rollout; the last step, to sigma 0, is never one."""
        length = self.sde_window_length
        stop = self.train_steps - 1 if length == "all" else self.sde_window_start + length
        return range(self.sde_window_start, stop)

    @property
    def window_places(self) -> range:
        """The steps at which the window may start."""
        start = self.sde_window_start
        if self.sde_window_moves == "never":
            return range(start, start + 1)
        return range(start, (self.sde_window_stop or self.train_steps - 1) - len(self.sde_window) + 1)

    @property
    def trained_steps(self) -> range:
        """All steps that are stochastic and trained in some iteration."""
        return range(self.window_places.start, self.window_places.stop - 1 + len(self.sde_window))

    @property
    def scored_in_one_pass(self) -> bool:
        """Whether all members of a group are drawn and scored by one velocity, in whatever batches."""
        return self.shared_noise and len(self.sde_window) == 1

    @property
    def lockstep(self) -> bool:
        """Whether several processes make each forward pass of the denoiser together."""
        return self.parallel != "ddp" or self.context_parallel > 1

    @model_validator(mode="after")
    def _lockstep_is_possible(self) -> Self:
        if not self.lockstep:
            return self
        if self.efficiency.offload:
            raise ValueError(
                "efficiency.offload takes the whole denoiser off the GPU, but with parallel "
                f"{self.parallel} and context_parallel {self.context_parallel} its parts stay where they "
                "are; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _window_can_move(self) -> Self:
        stop, last = self.sde_window_stop, self.train_steps - 1
        if self.sde_window_moves == "never":
            if stop is not None:
                raise ValueError(
                    f"sde_window_stop is {stop}, but sde_window_moves is never: leave sde_window_stop out "
                    "(none), or let the window move"
                )
            return self
        if stop is not None and stop > last:
            raise ValueError(
                f"sde_window_stop is {stop}, but of {self.train_steps} train_steps only [0, {last}) can be "
                "stochastic; lower it"
            )
        if not self.sde_window:
            return self
        if len(self.window_places) < 2:
            raise ValueError(
                f"sde_window_moves is {self.sde_window_moves}, but a window of {len(self.sde_window)} steps "
                f"has less than two places in the steps [{self.sde_window_start}, {stop or last}); lower "
                "sde_window_length or sde_window_start, raise sde_window_stop, or leave it at never"
            )
        return self

    @model_validator(mode="after")
    def _ode_has_steps(self) -> Self:
        if len(self.sde_window) < self.train_steps - 1:
            return self
        for name, value, plain in (
            ("ode_solver", self.ode_solver, "euler"),
            ("ode_stride", self.ode_stride, 1),
        ):
            if value != plain:
                raise ValueError(
                    f"{name} is {value}, but the window leaves no step but the last to the ODE; lower "
                    f"sde_window_length, or leave {name} at {plain}"
                )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.sde_window or self.sde_window.stop > self.train_steps - 1:
            raise ValueError(
                f"the stochastic window is steps [{self.sde_window.start}, {self.sde_window.stop}), but of "
                f"{self.train_steps} train_steps only [0, {self.train_steps - 1}) can be stochastic; "
                "change sde_window_start, sde_window_length or train_steps"
            )
        if self.group_size % self.updates_per_rollout:
            raise ValueError(
                f"updates_per_rollout is {self.updates_per_rollout}, but a group of {self.group_size} "
                "(group_size) cannot be split into that many equal minibatches"
            )
        share = self.group_size // self.updates_per_rollout
        if self.off_window_members > share:
            raise ValueError(
                f"off_window_members is {self.off_window_members}, but an update has {share} members of a "
                "group (group_size / updates_per_rollout); lower it, or set it to 0 for all of them"
            )
        batches_matter = self.precision == "bfloat16" and not self.scored_in_one_pass
        if batches_matter and (self.update_batch != self.rollout_batch or share % self.rollout_batch):
            raise ValueError(
                f"rollout_batch is {self.rollout_batch}, update_batch {self.update_batch}, but in bfloat16 "
                "a sample is scored exactly as it was drawn only in the same batch: they must be equal and "
                f"divide the {share} samples of an update (group_size / updates_per_rollout)"
            )
        if self.transition == "cps" and self.noise_scale > 1:
            raise ValueError(f"noise_scale is {self.noise_scale}, but that of cps is at most 1")
        if self.reward_weights.camera_motion == self.reward_weights.reprojection == 0:
            raise ValueError("reward_weights are all 0, so there is nothing to train for")
        return self
