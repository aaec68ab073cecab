"""Settings of `vggrpo score`: which videos or latents, and what judges them."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import tyro
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vggrpo.config.base import Settings
from vggrpo.config.lgm_path import LGMPath
from vggrpo.config.rewards import RewardSettings

Space = Literal["latent", "rgb"]


class ScoreSettings(Settings):
    """Rewards of videos or of saved latents, and all that they are made of."""

    free_on_resume: ClassVar[frozenset[str]] = frozenset(
        {"paths", "output", "resume", "label", "plots", "threads", "device", "max_clip_gigabytes", "seed"}
    )

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional] = Field(
        min_length=1,
        description="videos, latents (.safetensors, as `generate --save-latents` writes them), or folders of "
        "either",
    )
    output: Path = Field(description="folder of the results to create")
    resume: bool = Field(False, description="continue in `output`: finished clips are not scored again")
    label: str | None = Field(None, description="name of the clips in tables; that of `output` if unset")

    space: Space = Field(
        "latent", description="latent: by a latent geometry model; rgb: by an uncut one, which sees frames"
    )
    lgm_path: LGMPath | None = Field(
        None, description="with latent: the latent geometry model, a folder or a name"
    )
    geometry_model: str | None = Field(
        None, description="with rgb: geometry model, a name, folder, weight file or repository"
    )
    base_model: str = Field(
        "micro",
        description="video model whose autoencoder encodes videos (latent) or decodes latents (rgb)",
    )
    view_stride: PositiveInt = Field(
        4,
        description="with rgb: frames from one view to the next. Latents have one view a latent frame",
    )
    max_views: int = Field(
        21, ge=3, description="with rgb: most views of a clip; views of longer clips are further apart"
    )
    max_side: PositiveInt = Field(
        518, description="with rgb: longer side of the views, pixels; never enlarged"
    )
    rewards: RewardSettings = RewardSettings()

    plots: bool = Field(True, description="draw a picture of every clip")
    seed: NonNegativeInt = Field(0, description="seed of the bootstrap intervals")
    threads: NonNegativeInt = Field(0, description="CPU threads; 0 leaves PyTorch's choice")
    device: str = Field("auto", description="where models run; auto is CUDA if there is any, else the CPU")
    max_clip_gigabytes: PositiveFloat = Field(
        4.0, description="a clip whose decoded frames need more memory fails (3 bytes a pixel and frame)"
    )

    @model_validator(mode="after")
    def _has_its_model(self) -> Self:
        if self.space == "latent" and self.lgm_path is None:
            raise ValueError(
                "space is latent, which needs lgm_path, a latent geometry model (vggrpo train-lgm); give "
                "it, or --space rgb with a geometry_model"
            )
        if self.space == "rgb" and self.geometry_model is None:
            raise ValueError("space is rgb, which needs geometry_model (micro, any4d, vggt)")
        of_others = {
            "latent": ("geometry_model", "view_stride", "max_views", "max_side"),
            "rgb": ("lgm_path",),
        }
        for name in of_others[self.space]:
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(f"{name} is {value}, but space {self.space} does not use it; leave it out")
        return self
