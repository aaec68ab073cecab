"""Settings of `vggrpo find-layer` and `vggrpo train-lgm`: the latent geometry model."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vggrpo.config.base import ModelRunSettings, RunSettings, SamplingRunSettings, Settings
from vggrpo.config.lgm_path import LGMPath
from vggrpo.config.rewards import RewardSettings

WORLD = "world"
"""What stands for the procedural world in place of a folder of videos or a file of prompts."""


class StitchSettings(ModelRunSettings):
    """The two models that are stitched together, and the clips that show how."""

    base_model: str = Field(
        description="video model: a name, a Wan or LTX pipeline folder of diffusers, or a repository"
    )
    geometry_model: str = Field(description="geometry model: a name, a folder, or a repository")
    num_frames: PositiveInt = Field(description="frames of a clip, a multiple of the temporal stride plus 1")
    height: PositiveInt = Field(description="pixels")
    width: PositiveInt = Field(description="pixels")
    real_videos: str = Field(description="real clips: a folder of videos, or `world`")
    fps: PositiveFloat | None = Field(
        None,
        description="frames per second of clips from a folder, at most its videos' own; every frame of each "
        "video if unset",
    )
    clip_cache: Path | None = Field(
        None,
        description="folder that keeps the clips for other runs to share; the run's own `clips` if unset",
    )
    batch_size: PositiveInt = Field(8, description="clips at once")
    fit_clips: PositiveInt = Field(192, description="real clips that the regressions are fitted on")
    held_out_clips: PositiveInt = Field(
        64, description="other clips of each kind that quality is measured on"
    )
    downstream_clips: NonNegativeInt = Field(
        32, description="held-out clips on which the untrained stitched models are run; 0 skips that"
    )


class FindLayerSettings(StitchSettings):
    """Ranks the layers at which the geometry model can be entered from video latents."""

    candidates: tuple[str, ...] = Field(
        (), description="stitch points to compare; all but deep ones if empty"
    )


class DistillationWeights(Settings):
    """Weights of the terms of the distillation loss; 0 leaves a term out."""

    depth: NonNegativeFloat = 1.0
    points: NonNegativeFloat = 1.0
    rotation: NonNegativeFloat = 1.0
    translation: NonNegativeFloat = 1.0
    intrinsics: NonNegativeFloat = 1.0
    scene_flow: NonNegativeFloat = 1.0
    confidence: NonNegativeFloat = 0.1


class LGMSettings(StitchSettings, SamplingRunSettings):
    """Stitches a geometry model onto a video model's latents and distils it against the uncut model."""

    free_on_resume: ClassVar[frozenset[str]] = RunSettings.free_on_resume | {
        "gradient_checkpointing",
        "micro_batch",
    }

    stitch_point: str = Field(
        "auto", description="where the geometry model is entered; `auto` searches first"
    )
    init: LGMPath | None = Field(
        None,
        description="latent geometry model to go on from, a folder or a name, instead of from a layer search",
    )
    real_clips: NonNegativeInt = Field(1024, description="real clips in the training data")
    generated_clips: NonNegativeInt = Field(
        1024, description="clips made by the video model in the training data"
    )
    prompts: str = Field(description="prompts of the generated clips: a file, a set (all-train), or `world`")
    num_prompts: PositiveInt | None = Field(None, description="how many of the prompts to use; all if unset")
    infer_steps: PositiveInt = Field(50, description="denoising steps of the generated clips")
    cfg_scale: float = Field(ge=1, description="classifier-free guidance of the generated clips; 1 is none")

    lr: PositiveFloat = Field(2e-4, description="peak learning rate of AdamW for all but the connector")
    connector_lr_scale: PositiveFloat = Field(
        1 / 30, description="the connector's share of the learning rate: it starts from a regression"
    )
    weight_decay: NonNegativeFloat = 0.0
    epochs: PositiveInt = 20
    warmup_steps: NonNegativeInt = Field(100, description="steps of linear warm-up before the cosine decay")
    grad_clip: PositiveFloat = Field(1.0, description="largest gradient norm")
    gradient_checkpointing: bool = Field(
        False,
        description="compute the geometry model's blocks and heads anew in the backward pass to save memory",
    )
    micro_batch: PositiveInt | None = Field(
        None, description="clips in one backward pass, whose gradients add up; the whole batch if unset"
    )
    trainable: Literal["lora", "full"] = Field("lora", description="what of the geometry model is trained")
    lora_rank: PositiveInt = 64
    lora_alpha: PositiveFloat = 32.0
    loss: DistillationWeights = DistillationWeights()
    block_weight: NonNegativeFloat = Field(
        0.0,
        description="weight of the loss on what the transformer blocks hand on; above 0 the uncut model's "
        "are kept on disk beside the clips, two bytes a value of every token of every block",
    )
    rewards: RewardSettings = RewardSettings()
    """Of which the agreement with the teacher's is measured."""
    gate_clips: int = Field(
        256, ge=3, description="held-out generated clips on which the finished model's gate is measured"
    )
    noise_clips: NonNegativeInt = Field(
        64, description="how many of them are also measured under latent noise; 0 skips that"
    )
    evaluate_every: PositiveInt = Field(500, description="optimizer steps between measurements of quality")
    checkpoint_every: PositiveInt = Field(200, description="optimizer steps between checkpoints")
    keep_checkpoints: PositiveInt = Field(2, description="newest checkpoints to keep")

    @model_validator(mode="after")
    def _micro_batches_are_parts(self) -> Self:
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(
                f"micro_batch is {self.micro_batch}, but a batch has {self.batch_size} clips (batch_size); "
                "lower micro_batch, or raise batch_size"
            )
        return self

    @model_validator(mode="after")
    def _noise_clips_are_gate_clips(self) -> Self:
        if self.noise_clips > self.gate_clips:
            raise ValueError(
                f"noise_clips is {self.noise_clips}, but there are {self.gate_clips} gate_clips to take them "
                "from; lower noise_clips, or raise gate_clips"
            )
        return self
