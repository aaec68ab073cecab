"""What every settings class has in common."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, model_validator


class Settings(BaseModel):
    """Immutable settings: unknown names and non-finite numbers are errors, docstrings are help texts.

    Sub-groups are nested `Settings`; their flags and override paths are dotted (`loop.steps`).
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    free_on_resume: ClassVar[frozenset[str]] = frozenset(
        {"output", "resume", "allow_changes", "checkpoint_every", "keep_checkpoints", "efficiency"}
    )
    """Fields that may differ when a run is resumed, because they do not change what is computed, but for
    rounding and the seams of tiles."""
    held_on_resume: ClassVar[frozenset[str]] = frozenset()
    """Fields that not even `allow_changes` may change: what was measured before would not compare."""


class RunSettings(Settings):
    """What every command that makes a run folder shares."""

    output: Path = Field(description="run folder to create")
    resume: bool = Field(False, description="continue the run in `output`")
    allow_changes: tuple[str, ...] = Field(
        (), description="with --resume: settings that may differ from the run's, by name (lr, iterations)"
    )
    seed: NonNegativeInt = Field(0, description="seed of every random stream of the run")
    threads: NonNegativeInt = Field(0, description="CPU threads; 0 leaves PyTorch's choice")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="autocast type of the models")

    @model_validator(mode="after")
    def _changes_belong_to_a_resumed_run(self) -> Self:
        if self.allow_changes and not self.resume:
            raise ValueError(
                f"allow_changes names {', '.join(self.allow_changes)}, but only a run that goes on has "
                "settings to differ from; add --resume, or leave it out"
            )
        return self


class EfficiencySettings(Settings):
    """Memory and speed of a video model: what changes results by rounding, or hardly."""

    attention_backend: str | None = Field(
        None,
        description="diffusers' name of the denoiser's attention kernel (_native_cudnn, flash, sage, ...); "
        "PyTorch chooses if unset",
    )
    compile_blocks: bool = Field(
        False, description="compile the denoiser's blocks (torch.compile); the first passes take minutes"
    )
    cfg_batched: bool = Field(
        False,
        description="make both passes of classifier-free guidance in one, of twice the batch: less overhead, "
        "more memory",
    )
    tiled_decoding: bool = Field(
        False, description="decode videos in overlapping tiles: less memory, small differences at their seams"
    )
    offload: bool = Field(
        False, description="keep those parts of the video model that are not in use on the CPU"
    )
    offload_activations: bool = Field(
        False,
        description="keep on the CPU what the backward pass needs, of the denoiser, and in train-lgm of the "
        "latent geometry model; best with gradient checkpointing, where it is the blocks' inputs",
    )


class ModelRunSettings(RunSettings):
    """What every command that runs pretrained models shares."""

    device: str = Field(
        "auto", description="where the models run; auto is CUDA if there is any, else the CPU"
    )
    weights: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="type of a video model's frozen weights in memory",
    )
    efficiency: EfficiencySettings = EfficiencySettings()

    @model_validator(mode="after")
    def _weights_fit_precision(self) -> Self:
        if self.weights == "bfloat16" and self.precision == "float32":
            raise ValueError("weights bfloat16 need precision bfloat16; set both, or neither")
        return self


class SamplingRunSettings(ModelRunSettings):
    """What every command shares that samples from a video model in a run."""

    flow_shift: PositiveFloat | None = Field(
        None, description="shift of the sigma grid towards noise; the video model's own if unset"
    )
