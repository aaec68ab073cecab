"""Wan text-to-video models behind the VideoBackbone interface."""

import hashlib
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from vggrpo.backbones.base import LatentSpec, VideoBackbone
from vggrpo.backbones.wan import lora, lora_fit
from vggrpo.backbones.wan.efficiency import check_attention_backend, tiled, use_attention_backend
from vggrpo.backbones.wan.schedule import configured_flow_shift, predicts_clean_latents
from vggrpo.backbones.wan.source import PipelineSource, fingerprint, load_module
from vggrpo.backbones.wan.text import check_token_ids, encode_text, load_tokenizer
from vggrpo.backbones.wan.vae import decode_frames, encode_frames, load_vae, read_latent_spec
from vggrpo.config.base import EfficiencySettings
from vggrpo.flow import SigmaSchedule

Precision = Literal["float32", "bfloat16"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)
IDLE_DEVICE = "cpu"
"""Where parts wait that are not in use, with `efficiency.offload`."""
TEXT_BATCH = 8
"""Prompts a forward pass of the text encoder; 512 tokens of UMT5-XXL are large."""


class WanBackbone(VideoBackbone):
    """A diffusers `WanPipeline` of one denoiser (Wan2.1, Wan2.2-TI2V), in a folder or a repository.

    Every part is loaded when first used: `velocity` loads the transformer, `encode_prompts` the tokenizer and
    the text encoder, `encode_video` and `decode_latents` the autoencoder.

    Args:
        source: path of the pipeline's folder, or "owner/name".
        device: where the parts live.
        precision: "bfloat16" runs the denoiser under autocast; the autoencoder is always float32.
        weight_dtype: type in which transformer and text encoder are held; None is that of `precision`. What
            Wan keeps in float32 (norms, time embedding) stays so.
        gradient_checkpointing: recompute the denoiser's blocks in the backward pass to save memory.
        flow_shift: shift of the sigma grid; None takes the pipeline's own.
        efficiency: memory and speed of the parts; by default PyTorch's and diffusers' own choices.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        weight_dtype: torch.dtype | None = None,
        gradient_checkpointing: bool = False,
        flow_shift: float | None = None,
        efficiency: EfficiencySettings | None = None,
    ) -> None:
        """Reads the configuration files; loads no weights.

        Raises:
            FileNotFoundError, CorruptFileError: if `source` or one of its configuration files is missing
                or damaged.
            ValueError: if it is no Wan text-to-video pipeline of one denoiser, or the types contradict
                each other.
            ConfigError: if there is no such attention backend.
        """
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is {precision!r}, expected 'float32' or 'bfloat16'")
        if weight_dtype is None:
            weight_dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        elif weight_dtype != torch.float32 and precision == "float32":
            raise ValueError(f"weight_dtype {weight_dtype} needs precision 'bfloat16', not 'float32'")
        if precision == "bfloat16":
            # Wan's query and key norms keep float32 weights under autocast: right, if not the fastest kernel.
            warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        self.source = PipelineSource(source)
        self.device = torch.device(device)
        self.precision = precision
        self.weight_dtype = weight_dtype
        self.gradient_checkpointing = gradient_checkpointing
        self.efficiency = efficiency or EfficiencySettings()
        if self.efficiency.attention_backend is not None:
            check_attention_backend(self.efficiency.attention_backend)
        self._check_pipeline()
        scheduler = self.source.config("scheduler")
        own_shift = configured_flow_shift(scheduler)
        self.predicts_clean = predicts_clean_latents(scheduler)
        """Whether the denoiser predicts clean latents; `velocity` returns velocities all the same."""
        self.flow_shift = own_shift if flow_shift is None else flow_shift
        denoiser = self.source.config("transformer")
        self._patch_size: tuple[int, int, int] = tuple(denoiser["patch_size"])
        self._latent_channels: int = denoiser["in_channels"]
        self._transformer: WanTransformer3DModel | None = None
        self._vae: AutoencoderKLWan | None = None
        self._text_encoder: UMT5EncoderModel | None = None
        self._tokenizer: PreTrainedTokenizerFast | None = None
        self._in_use: nn.Module | None = None

    def _check_pipeline(self) -> None:
        index = self.source.index
        if index.get("_class_name") != "WanPipeline":
            raise ValueError(
                f"{self.source.name} is a {index.get('_class_name')}, expected a WanPipeline (text to video)"
            )
        if index.get("boundary_ratio") is not None or index.get("transformer_2", [None])[0] is not None:
            raise ValueError(
                f"{self.source.name} switches between two denoisers; only pipelines of one are supported "
                "(Wan2.1, Wan2.2-TI2V-5B)"
            )

    @cached_property
    def latent_spec(self) -> LatentSpec:
        return read_latent_spec(self.source.folder("vae"))

    @cached_property
    def text_fingerprint(self) -> str:
        files = fingerprint(self.source.folder("tokenizer"), self.source.folder("text_encoder"))
        return hashlib.sha256(f"{files} {self.weight_dtype}".encode()).hexdigest()

    @cached_property
    def _denoiser_fingerprint(self) -> str:
        return fingerprint(self.source.folder("transformer"))

    def identity(self) -> dict[str, str | float]:
        return {
            "denoiser": self._denoiser_fingerprint,
            "autoencoder": self.latent_spec.fingerprint,
            "text_encoder": self.text_fingerprint,
            "flow_shift": self.flow_shift,
            "prediction": "clean" if self.predicts_clean else "velocity",
            "precision": self.precision,
            "weight_dtype": str(self.weight_dtype).removeprefix("torch."),
        }

    @property
    def transformer(self) -> WanTransformer3DModel:
        """The denoiser, with its LoRA if there is one."""
        if self._transformer is None:
            folder = self.source.folder("transformer")
            transformer = load_module(WanTransformer3DModel, folder, self.weight_dtype)
            if self.gradient_checkpointing:
                transformer.enable_gradient_checkpointing()
            if self.efficiency.attention_backend is not None:
                use_attention_backend(transformer, self.efficiency.attention_backend)
            if self.efficiency.compile_blocks:
                transformer.compile_repeated_blocks(fullgraph=True)
            self._transformer = self._placed(transformer)
        self._use(self._transformer)
        return self._transformer

    @property
    def vae(self) -> AutoencoderKLWan:
        """The autoencoder, float32."""
        if self._vae is None:
            self._vae = self._placed(load_vae(self.source.folder("vae")))
        self._use(self._vae)
        return self._vae

    @property
    def text_encoder(self) -> UMT5EncoderModel:
        """The text encoder."""
        if self._text_encoder is None:
            folder = self.source.folder("text_encoder")
            text_encoder = load_module(UMT5EncoderModel, folder, self.weight_dtype)
            check_token_ids(self.tokenizer, text_encoder)
            self._text_encoder = self._placed(text_encoder)
        self._use(self._text_encoder)
        return self._text_encoder

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.source.folder("tokenizer"))
        return self._tokenizer

    def _placed(self, part: ModuleT) -> ModuleT:
        """A part that has just been loaded, on the device unless `_use` will bring it there."""
        return part if self.efficiency.offload else part.to(self.device)

    def _use(self, part: nn.Module) -> None:
        """With `efficiency.offload`, brings a part to the device and takes the others off it."""
        if not self.efficiency.offload or part is self._in_use:
            return
        for other in (self._transformer, self._vae, self._text_encoder):
            if other is not None and other is not part:
                other.to(IDLE_DEVICE)
        part.to(self.device)
        self._in_use = part

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        shape = self.latent_spec.latent_shape(num_frames, height, width)
        _, patch_height, patch_width = self._patch_size
        for name, side, patch in (("height", height, patch_height), ("width", width, patch_width)):
            multiple = self.latent_spec.spatial_stride * patch
            if side % multiple:
                lower = side // multiple * multiple
                raise ValueError(
                    f"{name} is {side}, but the denoiser needs a multiple of {multiple}; "
                    f"use {lower or multiple} or {lower + multiple}"
                )
        return shape

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            parts = [
                encode_text(self.text_encoder, self.tokenizer, prompts[start : start + TEXT_BATCH])
                for start in range(0, max(len(prompts), 1), TEXT_BATCH)
            ]
        return torch.cat(parts)

    def velocity(
        self,
        latents: Tensor,
        sigma: Tensor | float,
        prompt_embeds: Tensor,
        negative_prompt_embeds: Tensor | None = None,
        cfg_scale: float = 1.0,
    ) -> Tensor:
        self._check_latents(latents)
        batch_size = len(latents)
        # One timestep per sample, also for pipelines that expand it over tokens (Wan2.2-TI2V): without a
        # conditioning image every token has the same. Never in half precision: bfloat16 turns 999 into 1000.
        levels = torch.as_tensor(sigma, dtype=torch.float64, device="cpu")
        if levels.ndim > 1 or (levels.ndim == 1 and len(levels) != batch_size):
            raise ValueError(
                f"sigma has shape {tuple(levels.shape)}, expected a number or one per sample, [{batch_size}]"
            )
        if self.predicts_clean and bool((levels <= 0).any()):
            raise ValueError("sigma is 0, where a denoiser that predicts clean latents has no velocity")
        levels = levels.float().expand(batch_size).to(latents.device)
        velocity = self._predict(latents, levels, prompt_embeds, "prompt_embeds")
        if cfg_scale == 1.0:
            return velocity
        if negative_prompt_embeds is None:
            raise ValueError(
                f"cfg_scale is {cfg_scale:g}, which needs negative_prompt_embeds; encode the negative prompt "
                "(for example the empty one), or use cfg_scale 1"
            )
        unguided = self._predict(latents, levels, negative_prompt_embeds, "negative_prompt_embeds")
        return unguided + cfg_scale * (velocity - unguided)

    def _predict(self, latents: Tensor, sigma: Tensor, embeds: Tensor, name: str) -> Tensor:
        if embeds.ndim != 3 or len(embeds) not in (1, len(latents)):
            raise ValueError(
                f"{name} has shape {tuple(embeds.shape)}, expected [B, L, D] with B = {len(latents)} or 1"
            )
        embeds = embeds.expand(len(latents), -1, -1)
        enabled = self.precision == "bfloat16"
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=enabled):
            prediction = self.transformer(latents, 1000 * sigma, embeds, return_dict=False)[0].float()
        if not self.predicts_clean:
            return prediction
        return (latents.float() - prediction) / sigma.view(-1, 1, 1, 1, 1)

    def _check_latents(self, latents: Tensor) -> None:
        channels, (_, patch_height, patch_width) = self._latent_channels, self._patch_size
        if latents.ndim != 5 or latents.shape[1] != channels:
            raise ValueError(f"latents has shape {tuple(latents.shape)}, expected [B, {channels}, T, H, W]")
        if latents.shape[3] % patch_height or latents.shape[4] % patch_width:
            raise ValueError(
                f"latents are {latents.shape[3]}x{latents.shape[4]}, but the denoiser's patches are "
                f"{patch_height}x{patch_width}: both sides must be multiples"
            )

    @torch.no_grad()
    def encode_video(self, frames: Tensor) -> Tensor:
        if frames.ndim != 5 or frames.shape[-1] != 3 or not frames.is_floating_point():
            raise ValueError(
                f"frames are {frames.dtype} of shape {tuple(frames.shape)}, expected floats in [0, 1] "
                "of shape [B, T, H, W, 3]"
            )
        self.latent_spec.latent_shape(*frames.shape[1:4])
        return encode_frames(self.vae, frames.to(self.device, torch.float32))

    def decode_latents(self, latents: Tensor) -> Tensor:
        channels = self.latent_spec.channels
        if latents.ndim != 5 or latents.shape[1] != channels:
            raise ValueError(f"latents has shape {tuple(latents.shape)}, expected [B, {channels}, T, H, W]")
        vae = self.vae
        with tiled(vae, self.efficiency.tiled_decoding):
            return decode_frames(vae, latents.to(self.device, torch.float32))

    def schedule(self, num_steps: int) -> SigmaSchedule:
        return SigmaSchedule.unipc(num_steps, shift=self.flow_shift)

    def add_lora(self, rank: int, alpha: float, targets: str = "attention", seed: int = 0) -> None:
        lora.add_lora(self.transformer, rank, alpha, targets, seed)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return lora.lora_parameters(self.transformer)

    def lora_disabled(self) -> AbstractContextManager[None]:
        return nullcontext() if self._transformer is None else lora.lora_disabled(self._transformer)

    def save_lora(self, folder: Path) -> None:
        lora.save_lora(self.transformer, folder)

    def load_lora(self, folder: Path, scale: float = 1.0) -> None:
        lora.load_lora(self.transformer, folder, scale)

    def load_loras(self, loras: Sequence[tuple[Path, float]]) -> None:
        lora.load_loras(self.transformer, loras)

    def check_lora(self, folder: Path) -> None:
        lora_fit.check_lora(self.source.config("transformer"), folder, self.source.name)

    def release(self, *parts: str) -> None:
        for part in parts:
            if part == "vae":
                self._vae = None
            elif part == "text_encoder":
                self._text_encoder = None
            else:
                raise ValueError(f"part is {part!r}, expected 'text_encoder' or 'vae'")
        if self._in_use is not self._transformer:
            self._in_use = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
