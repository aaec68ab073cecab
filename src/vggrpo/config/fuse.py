"""Settings of `vggrpo fuse`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from vggrpo.config.base import Settings


class FuseSettings(Settings):
    """Merges LoRAs into their base model, or writes one for ComfyUI."""

    base_model: str = Field(
        description="video model: a name, a Wan or LTX pipeline folder of diffusers, or a repository"
    )
    lora: tuple[Path, ...] = Field(
        min_length=1,
        description="folders of LoRA weights (`lora` in a run, or from diffusers), or their files; their "
        "effects add up",
    )
    lora_scale: tuple[float, ...] = Field(
        (), description="factor on the effect of each LoRA, in their order; 1 if not given"
    )
    output: Path = Field(description="folder (pipeline) or .safetensors file (comfyui) to write")
    into: Literal["pipeline", "comfyui"] = Field(
        "pipeline",
        description="pipeline: a whole pipeline's folder with the LoRAs in its weights; comfyui: one LoRA, "
        "its scale included, in a file by ComfyUI's names",
    )

    @property
    def loras(self) -> list[tuple[Path, float]]:
        """Each LoRA with its scale."""
        return list(zip(self.lora, self.lora_scale or (1.0,) * len(self.lora), strict=True))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lora_scale and len(self.lora_scale) != len(self.lora):
            raise ValueError(
                f"there are {len(self.lora_scale)} of lora_scale for {len(self.lora)} of lora; give one for "
                "each, or none"
            )
        if self.into == "comfyui" and len(self.lora) > 1:
            raise ValueError(
                f"into is comfyui, but there are {len(self.lora)} LoRAs; write each to a file of its own, "
                "since ComfyUI adds them up itself"
            )
        if self.into == "comfyui" and not self.loras[0][1] > 0:
            raise ValueError(
                f"lora_scale is {self.loras[0][1]:g}, but a LoRA for ComfyUI needs a positive one"
            )
        if self.into == "comfyui" and self.output.suffix != ".safetensors":
            raise ValueError(f"output is {self.output}, but ComfyUI reads a .safetensors file; name one")
        return self
