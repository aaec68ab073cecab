"""LTX-Video text-to-video models behind the VideoBackbone interface."""

from collections.abc import Sequence
from functools import cached_property

from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel
from torch import Tensor
from transformers import T5EncoderModel

from vggrpo.backbones.base import LatentSpec
from vggrpo.backbones.ltx.schedule import SigmaGrid
from vggrpo.backbones.ltx.text import MAX_TEXT_LENGTH, attention_mask, encode_text
from vggrpo.backbones.ltx.vae import decode_frames, encode_frames, read_latent_spec
from vggrpo.backbones.pipelines import PipelineBackbone
from vggrpo.flow import SigmaSchedule

FRAME_RATE = 25
"""Frames per second of the clips, by which the denoiser places latent frames in time; the pipeline's
default."""


class LTXBackbone(PipelineBackbone):
    """A diffusers `LTXPipeline` (LTX-Video, text to video); arguments as `PipelineBackbone`.

    The denoiser takes each latent pixel as a token. Outside this class there are no tokens: latents are
    [B, C, T, H, W] as everywhere.
    """

    pipeline_class = LTXPipeline
    transformer_class = LTXVideoTransformer3DModel
    vae_class = AutoencoderKLLTXVideo
    text_encoder_class = T5EncoderModel
    max_text_length = MAX_TEXT_LENGTH

    _patch_size = (1, 1)

    def _configure(self, flow_shift: float | None) -> None:
        denoiser = self.source.config("transformer")
        for key in ("patch_size", "patch_size_t"):
            if denoiser.get(key, 1) != 1:
                raise ValueError(
                    f"the denoiser's {key} is {denoiser[key]}; only LTX-Video's own, 1, is supported"
                )
        self._grid = SigmaGrid.of_pipeline(self.source.config("scheduler"), flow_shift)

    @cached_property
    def latent_spec(self) -> LatentSpec:
        return read_latent_spec(self.source.folder("vae"))

    def _sampling_identity(self) -> dict[str, str | float]:
        return {**self._grid.identity(), "frame_rate": FRAME_RATE}

    def schedule(self, num_steps: int, latent_shape: Sequence[int] | None = None) -> SigmaSchedule:
        if latent_shape is None and self._grid.shift is None:
            raise ValueError(
                "latent_shape is not given, but this model shifts its sigma grid by the clip's size: give "
                "schedule the clip's latent_shape, or the model a flow_shift"
            )
        _, frames, height, width = latent_shape or (0, 0, 0, 0)
        return self._grid.schedule(num_steps, frames * height * width)

    def _encode_text(self, prompts: Sequence[str]) -> Tensor:
        return encode_text(self.text_encoder, self.tokenizer, prompts)

    def _predict(self, latents: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        num_frames, height, width = latents.shape[2:]
        spec = self.latent_spec
        tokens = self.transformer(
            latents.flatten(2).transpose(1, 2),
            encoder_hidden_states=embeds,
            timestep=1000 * sigma,
            encoder_attention_mask=attention_mask(embeds),
            num_frames=num_frames,
            height=height,
            width=width,
            rope_interpolation_scale=(
                spec.temporal_stride / FRAME_RATE,
                spec.spatial_stride,
                spec.spatial_stride,
            ),
            return_dict=False,
        )[0].float()
        return tokens.transpose(1, 2).unflatten(2, (num_frames, height, width))

    def _encode_frames(self, frames: Tensor) -> Tensor:
        return encode_frames(self.vae, frames)

    def _decode_frames(self, latents: Tensor) -> Tensor:
        return decode_frames(self.vae, latents)
