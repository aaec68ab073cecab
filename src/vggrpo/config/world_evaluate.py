"""Settings of `vggrpo world evaluate`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from vggrpo.config.base import Settings
from vggrpo.config.pretrain import ClipSettings
from vggrpo.config.rewards import RewardSettings


class WorldEvaluateSettings(Settings):
    """Measures the world's video model and geometry model against exact geometry; writes model cards."""

    output: Path = Field(description="folder to create")
    video: str = Field(
        description="video model: a name with packaged weights, or a diffusers WanPipeline folder"
    )
    geometry: str = Field(description="geometry model: a name with packaged weights, or a folder")
    clips: ClipSettings = ClipSettings()
    num_clips: PositiveInt = Field(64, description="clips of the split `test` to measure on")
    num_samples: PositiveInt = Field(64, description="videos to generate from captions of the split `test`")
    num_faulty: PositiveInt = Field(
        128, description="scenes of the split `test` to render clean and with each kind of fault"
    )
    fault_severity: PositiveFloat = Field(
        1.0, description="size of the planted faults; 1 is what a person notices"
    )
    num_frechet: NonNegativeInt = Field(
        2048, description="clips in each set of the Fréchet distances; 0 leaves them out"
    )
    feature_cache: Path | None = Field(
        None,
        description="folder that keeps the features of those clips for other evaluations; if unset they are "
        "beside `output` until it is complete, so that an interrupted measurement continues",
    )
    infer_steps: PositiveInt = Field(50, description="denoising steps of the generated videos")
    cfg_scale: float = Field(1.0, ge=1, description="classifier-free guidance of the videos; 1 is none")
    batch_size: PositiveInt = Field(8, description="clips at once")
    rewards: RewardSettings = RewardSettings()
    train_runs: tuple[Path, ...] = Field(
        (), description="run folders of the trainings that made the weights: their settings go into the cards"
    )
    write_cards: bool = Field(False, description="write the model cards into the models' folders as well")
    seed: NonNegativeInt = Field(0, description="seed of the videos and of the noise")
    threads: NonNegativeInt = Field(0, description="CPU threads; 0 leaves PyTorch's choice")
    device: str = Field(
        "auto", description="where the models run; auto is CUDA if there is any, else the CPU"
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="autocast type of the denoiser")

    @field_validator("num_frechet")
    @classmethod
    def _enough_for_a_covariance(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one clip has no covariance; give 0 to leave the Fréchet distances out, or 2048")
        return value
