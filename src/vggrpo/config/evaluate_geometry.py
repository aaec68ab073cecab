"""Settings of `vggrpo evaluate-geometry`: which models, on which exact geometry."""

from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from vggrpo.config.base import Settings
from vggrpo.config.lgm import WORLD
from vggrpo.config.lgm_path import LGMPath
from vggrpo.config.pretrain import ClipSettings
from vggrpo.config.rewards import RewardSettings


class EvaluateGeometrySettings(Settings):
    """Measures a geometry model, and a latent one, against exact cameras, depth and scene flow."""

    free_on_resume: ClassVar[frozenset[str]] = frozenset(
        {"output", "resume", "batch_size", "threads", "device"}
    )

    output: Path = Field(description="folder of the results to create")
    resume: bool = Field(False, description="continue in `output`: finished clips are not measured again")

    geometry_model: str | None = Field(
        None, description="uncut geometry model, which sees pixels: a name, folder, weight file or repository"
    )
    lgm_path: LGMPath | None = Field(
        None,
        description="latent geometry model, which sees the latents of the same clips, a folder or a name",
    )
    base_model: str = Field("micro", description="video model whose autoencoder makes the latents")

    clips: str = Field(
        WORLD,
        description="world: clips of the procedural world; or a folder of clips with exact geometry, as "
        "`vggrpo world render` writes it",
    )
    split: Literal["train", "validation", "test"] = Field("test", description="of the world's clips")
    num_clips: PositiveInt | None = Field(
        None, description="clips to measure; unset is every clip of a folder, and 64 of the world"
    )
    raster: ClipSettings = Field(ClipSettings(), description="length and size of the world's clips")
    view_stride: PositiveInt = Field(
        4, description="frames from one view to the next; that of the latent geometry model, if there is one"
    )

    noise_levels: tuple[NonNegativeFloat, ...] = Field(
        (0.0, 0.05, 0.1, 0.2, 0.4, 0.8),
        description="with both models: standard deviations of noise on the latents, as shares of that of the "
        "latents' channel; rising, from 0",
    )
    noise_clips: NonNegativeInt = Field(
        32, description="clips on which noise is measured, the first ones; 0 leaves it out"
    )
    rewards: RewardSettings = Field(
        RewardSettings(), description="options of the rewards that are followed under noise"
    )

    batch_size: PositiveInt = Field(8, description="clips at once")
    seed: NonNegativeInt = Field(0, description="seed of the noise and of the bootstrap intervals")
    threads: NonNegativeInt = Field(0, description="CPU threads; 0 leaves PyTorch's choice")
    device: str = Field(
        "auto", description="where the models run; auto is CUDA if there is any, else the CPU"
    )

    @property
    def measures_noise(self) -> bool:
        """Whether there is a robustness curve."""
        return self.lgm_path is not None and self.geometry_model is not None and self.noise_clips > 0

    @model_validator(mode="after")
    def _something_to_measure(self) -> Self:
        if self.lgm_path is None and self.geometry_model is None:
            raise ValueError(
                "there is nothing to measure; give geometry_model (micro, any4d, vggt), lgm_path, or both"
            )
        return self

    @model_validator(mode="after")
    def _levels_rise_from_none(self) -> Self:
        levels = self.noise_levels
        if not levels or levels[0] != 0 or any(b <= a for a, b in pairwise(levels)):
            raise ValueError(f"noise_levels are {list(levels)}, expected rising numbers, the first of them 0")
        return self
