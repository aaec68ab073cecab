"""Settings of `vggrpo generate`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vggrpo.config.base import Settings


class GenerateSettings(Settings):
    """Makes videos from prompts."""

    base_model: str = Field(
        description="video model: a name, a diffusers WanPipeline folder, or a repository"
    )
    prompts: tuple[str, ...] = Field(min_length=1, description="prompts, or one .txt or .jsonl file of them")
    output: Path = Field(description="folder of the videos and their JSON sidecars")
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1, description="one video per prompt and seed")
    lora: Path | None = Field(None, description="folder of LoRA weights (`lora` in a run, or from diffusers)")
    lora_scale: float = Field(1.0, description="factor on the LoRA's effect")
    negative_prompt: str = ""
    num_frames: PositiveInt = Field(description="frames of a video, a multiple of the temporal stride plus 1")
    height: PositiveInt = Field(description="pixels")
    width: PositiveInt = Field(description="pixels")
    fps: PositiveFloat = Field(description="frames per second of the files")
    infer_steps: PositiveInt = Field(50, description="denoising steps")
    cfg_scale: float = Field(ge=1, description="classifier-free guidance; 1 is none")
    batch_size: PositiveInt = Field(4, description="videos denoised at once")
    overwrite: bool = Field(False, description="make videos again whose files exist")
    save_latents: bool = Field(False, description="also write each video's latents (.safetensors)")
    threads: NonNegativeInt = Field(0, description="CPU threads; 0 leaves PyTorch's choice")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="autocast type of the denoiser")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lora is None and self.lora_scale != 1.0:
            raise ValueError(f"lora_scale is {self.lora_scale:g}, but there is no lora to scale")
        return self
