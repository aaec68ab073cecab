"""Wan text-to-video models behind the VideoBackbone interface."""

from collections.abc import Sequence
from functools import cached_property

from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from torch import Tensor
from transformers import UMT5EncoderModel

from vggrpo.backbones.base import LatentSpec
from vggrpo.backbones.pipelines import PipelineBackbone
from vggrpo.backbones.wan.schedule import configured_flow_shift, predicts_clean_latents
from vggrpo.backbones.wan.text import MAX_TEXT_LENGTH, encode_text
from vggrpo.backbones.wan.vae import decode_frames, encode_frames, read_latent_spec
from vggrpo.flow import SigmaSchedule


class WanBackbone(PipelineBackbone):
    """A diffusers `WanPipeline` of one denoiser (Wan2.1, Wan2.2-TI2V); arguments as `PipelineBackbone`."""

    pipeline_class = WanPipeline
    transformer_class = WanTransformer3DModel
    vae_class = AutoencoderKLWan
    text_encoder_class = UMT5EncoderModel
    max_text_length = MAX_TEXT_LENGTH
    shares_tokens = True

    predicts_clean: bool
    """Whether the denoiser predicts clean latents; `velocity` returns velocities all the same."""
    flow_shift: float

    def _configure(self, flow_shift: float | None) -> None:
        index = self.source.index
        if index.get("boundary_ratio") is not None or index.get("transformer_2", [None])[0] is not None:
            raise ValueError(
                f"{self.source.name} switches between two denoisers; only pipelines of one are supported "
                "(Wan2.1, Wan2.2-TI2V-5B)"
            )
        scheduler = self.source.config("scheduler")
        own_shift = configured_flow_shift(scheduler)
        self.predicts_clean = predicts_clean_latents(scheduler)
        self.flow_shift = own_shift if flow_shift is None else flow_shift

    @cached_property
    def latent_spec(self) -> LatentSpec:
        return read_latent_spec(self.source.folder("vae"))

    @cached_property
    def _patch_size(self) -> tuple[int, int]:
        _, height, width = self.source.config("transformer")["patch_size"]
        return height, width

    def _sampling_identity(self) -> dict[str, str | float]:
        prediction = "clean" if self.predicts_clean else "velocity"
        return {"flow_shift": self.flow_shift, "prediction": prediction}

    def schedule(self, num_steps: int, latent_shape: Sequence[int] | None = None) -> SigmaSchedule:
        return SigmaSchedule.unipc(num_steps, shift=self.flow_shift)

    def _encode_text(self, prompts: Sequence[str]) -> Tensor:
        return encode_text(self.text_encoder, self.tokenizer, prompts)

    def _check_levels(self, sigma: Tensor) -> None:
        if self.predicts_clean and bool((sigma <= 0).any()):
            raise ValueError("sigma is 0, where a denoiser that predicts clean latents has no velocity")

    def _predict(self, latents: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        prediction: Tensor = self.transformer(latents, 1000 * sigma, embeds, return_dict=False)[0].float()
        if not self.predicts_clean:
            return prediction
        return (latents.float() - prediction) / sigma.view(-1, 1, 1, 1, 1)

    def _encode_frames(self, frames: Tensor) -> Tensor:
        return encode_frames(self.vae, frames)

    def _decode_frames(self, latents: Tensor) -> Tensor:
        return decode_frames(self.vae, latents)
