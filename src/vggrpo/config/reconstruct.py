"""Settings of `vggrpo reconstruct`: a video or its latents to 4D scene files."""

from pathlib import Path
from typing import Annotated, Literal, Self

import tyro
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vggrpo.config.base import Settings
from vggrpo.config.lgm_path import LGMPath
from vggrpo.config.rewards import RewardSettings

SceneExport = Literal["npz", "ply", "ply-frames", "glb", "colmap", "depth", "rrd"]

LATENT_SUFFIX = ".safetensors"


class ReconstructSettings(Settings):
    """Reconstructs the 4D scene of a video, or of latents without decoding them.

    Writes scene.safetensors: cameras, intrinsics, depth, points, scene flow, static mask, colours, rewards.
    """

    input: Annotated[Path, tyro.conf.Positional] = Field(
        description="a video file, or the latents of one (.safetensors, as `generate --save-latents` writes)"
    )
    output: Path = Field(description="folder to create")
    overwrite: bool = Field(False, description="replace `output` if it exists")

    lgm_path: LGMPath | None = Field(
        None,
        description="latent geometry model, which sees latents, a folder or a name; or give geometry_model",
    )
    geometry_model: str | None = Field(
        None,
        description="uncut geometry model, which sees pixels: a name, folder, weight file or repository",
    )
    base_model: str = Field(
        description="video model whose autoencoder makes latents of videos, or videos of latents"
    )
    decode: bool = Field(
        True, description="decode latents for the colours; --no-decode colours points by their depth"
    )
    num_frames: PositiveInt | None = Field(
        None, description="use the first so many frames of the video; unset is all"
    )
    height: PositiveInt | None = Field(None, description="resize the video to this height; unset keeps it")
    width: PositiveInt | None = Field(None, description="resize the video to this width; unset keeps it")
    view_stride: PositiveInt = Field(
        4,
        description="with geometry_model: frames from one view to the next. Latents have one view a latent "
        "frame",
    )
    max_side: PositiveInt = Field(
        518, description="with geometry_model: longer side of the views, pixels; never enlarged"
    )
    fps: PositiveFloat | None = Field(
        None, description="frames per second; unset is what the file says, and 16 if it does not"
    )

    export: tuple[SceneExport, ...] = Field(
        (), description="further files: numpy, points, glTF, COLMAP model, 16-bit depth maps, Rerun"
    )
    confidence_quantile: float = Field(
        0.0, ge=0, lt=1, description="share of least confident points that exports of points leave out"
    )
    pixel_step: PositiveInt = Field(
        1, description="exports of points take every n-th pixel of every n-th row"
    )

    rewards: RewardSettings = Field(RewardSettings(), description="options of the rewards that are recorded")
    device: str = Field("auto", description="auto is CUDA if there is any, else the CPU")
    threads: NonNegativeInt = Field(0, description="CPU threads; 0 leaves PyTorch's choice")

    @property
    def reads_latents(self) -> bool:
        """Whether the input is latents, by its suffix."""
        return self.input.suffix == LATENT_SUFFIX

    @property
    def exports_points(self) -> bool:
        """Whether any export holds points, which `confidence_quantile` and `pixel_step` choose."""
        return bool({"ply", "ply-frames", "glb", "colmap", "rrd"} & set(self.export))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.lgm_path is None) == (self.geometry_model is None):
            raise ValueError(
                "give either lgm_path, a latent geometry model (vggrpo train-lgm), or geometry_model, an "
                "uncut one (micro, any4d, vggt)"
            )
        if not self.decode and not self.reads_latents:
            raise ValueError("decode is off, but the input is a video, which has its colours; leave it on")
        if not self.decode and self.geometry_model is not None:
            raise ValueError("decode is off, but geometry_model sees decoded frames; give lgm_path instead")
        for name in ("view_stride", "max_side"):
            value = getattr(self, name)
            if self.lgm_path is not None and value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is {value}, but a latent geometry model does not use it; leave it out"
                )
        if self.reads_latents:
            for name in ("num_frames", "height", "width"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} is {getattr(self, name)}, but latents are taken as they are; leave it out"
                    )
        if (self.height is None) != (self.width is None):
            raise ValueError("give both height and width, or neither")
        if len(set(self.export)) < len(self.export):
            raise ValueError(f"export is {', '.join(self.export)}; name each only once")
        if not self.exports_points and (self.confidence_quantile, self.pixel_step) != (0.0, 1):
            raise ValueError(
                "confidence_quantile and pixel_step choose the points of exports, but there is no export of "
                "points (ply, ply-frames, glb, colmap, rrd)"
            )
        return self
