"""Settings of `vggrpo tune-noise`: which stochastic rollouts explore enough and spoil little."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vggrpo.config.base import RunSettings, SamplingRunSettings
from vggrpo.config.lgm_path import LGMPath
from vggrpo.config.rewards import RewardSettings, RewardWeights


@dataclass(frozen=True)
class NoiseCell:
    """One way to sample rollouts: steps [start, start + length) are stochastic; with none it is the ODE."""

    transition: str
    noise_scale: float
    start: int
    length: int

    @property
    def name(self) -> str:
        """Names the cell's files: "flow_sde-0.7-0+5", or "ode"."""
        if not self.length:
            return "ode"
        return f"{self.transition}-{self.noise_scale}-{self.start}+{self.length}"

    @property
    def flags(self) -> str:
        """The flags of `vggrpo train` that sample so."""
        return (
            f"--transition {self.transition} --noise-scale {self.noise_scale} "
            f"--sde-window-start {self.start} --sde-window-length {self.length} --sde-window-moves never "
            "--sde-window-stop None --ode-solver euler --ode-stride 1"
        )


ODE = NoiseCell("flow_sde", 0.0, 0, 0)
"""What every cell is compared with. Without stochastic steps the transition has no effect."""


class TuneNoiseSettings(SamplingRunSettings):
    """Measures rollouts of every transition with every noise scale and window beside the ODE's samples."""

    free_on_resume: ClassVar[frozenset[str]] = RunSettings.free_on_resume | {"tolerance", "latent_tolerance"}
    held_on_resume: ClassVar[frozenset[str]] = frozenset(
        {
            *("weights", "precision", "flow_shift", "seed", "negative_prompt"),
            *("num_frames", "height", "width", "cfg_scale"),
            *("train_steps", "group_size", "shared_noise", "rewards", "reward_weights", "decode"),
        }
    )

    base_model: str = Field(
        description="video model: a name, a Wan or LTX pipeline folder of diffusers, or a repository"
    )
    lgm_path: LGMPath = Field(
        description="latent geometry model: a folder (`vggrpo train-lgm`) or a name (micro)"
    )

    prompts: str = Field(description="prompts of the groups: a file, a set (all-train), or `world`")
    negative_prompt: str = Field("", description="prompt of the unconditional branch of the guidance")
    num_prompts: int | None = Field(
        None, ge=3, description="how many of the prompts to use; all if unset. Intervals are over prompts"
    )

    num_frames: PositiveInt = Field(description="frames of a video, a multiple of the temporal stride plus 1")
    height: PositiveInt = Field(description="pixels")
    width: PositiveInt = Field(description="pixels")
    cfg_scale: float = Field(ge=1, description="classifier-free guidance of the rollouts; 1 is none")

    transitions: tuple[Literal["flow_sde", "dance_sde", "cps"], ...] = Field(
        ("flow_sde",), min_length=1, description="kinds of stochastic step to compare"
    )
    noise_scales: tuple[PositiveFloat, ...] = Field(min_length=1, description="values of the paper's a")
    sde_window_starts: tuple[NonNegativeInt, ...] = Field(
        (0,), min_length=1, description="first stochastic steps to compare"
    )
    sde_window_lengths: tuple[PositiveInt | Literal["all"], ...] = Field(
        ("all",),
        min_length=1,
        description="numbers of stochastic steps to compare; `all` is every one from the start but the last",
    )
    train_steps: int = Field(10, ge=2, description="denoising steps of a rollout, as in the training")
    group_size: int = Field(8, ge=2, description="rollouts of one prompt")
    shared_noise: bool = Field(False, description="start all members of a group from one noise")
    rollout_batch: PositiveInt = Field(8, description="samples denoised at once")

    reward_weights: RewardWeights = RewardWeights()
    rewards: RewardSettings = RewardSettings()

    tolerance: PositiveFloat = Field(
        0.5,
        description="largest loss of score against the ODE that is acceptable, in standard deviations of "
        "the ODE's samples",
    )
    latent_tolerance: PositiveFloat = Field(
        0.1,
        description="largest distance of the latents' statistics from the ODE's that is acceptable, in "
        "standard deviations of the ODE's latents",
    )
    decode: bool = Field(
        False, description="also decode one sample of every group: a video, and the statistics of its pixels"
    )
    fps: PositiveFloat = Field(16.0, description="frames per second of those videos")

    @property
    def cells(self) -> tuple[NoiseCell, ...]:
        """The grid, in the order in which it is measured."""
        return tuple(
            NoiseCell(transition, noise_scale, start, self._length(start, length))
            for transition in self.transitions
            for start in self.sde_window_starts
            for length in self.sde_window_lengths
            for noise_scale in self.noise_scales
        )

    def _length(self, start: int, length: int | Literal["all"]) -> int:
        return self.train_steps - 1 - start if length == "all" else length

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for cell in self.cells:
            stop = cell.start + cell.length
            if cell.length < 1 or stop > self.train_steps - 1:
                raise ValueError(
                    f"a stochastic window is steps [{cell.start}, {stop}), but of {self.train_steps} "
                    f"train_steps only [0, {self.train_steps - 1}) can be stochastic; change "
                    "sde_window_starts, sde_window_lengths or train_steps"
                )
            if cell.transition == "cps" and cell.noise_scale > 1:
                raise ValueError(
                    f"noise_scales hold {cell.noise_scale}, but that of cps is at most 1; leave one of them "
                    "out, or tune the kinds in two runs"
                )
        names = [cell.name for cell in self.cells]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"the grid holds {twice} twice (kind, noise scale, first step + number of steps); give every "
                "value of transitions, noise_scales, sde_window_starts and sde_window_lengths once"
            )
        if self.reward_weights.camera_motion == self.reward_weights.reprojection == 0:
            raise ValueError("reward_weights are all 0, so there is nothing to measure")
        return self
