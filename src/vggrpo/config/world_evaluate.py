"""Settings of `vggrpo world evaluate`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

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
