"""The part of a video backbone that is the same for every diffusers pipeline of one denoiser."""

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from transformers import PreTrainedTokenizerFast

from vggrpo.backbones.base import LatentSpec, VideoBackbone
from vggrpo.backbones.pipelines import lora, lora_fit, parallel
from vggrpo.backbones.pipelines.efficiency import (
    activations_on_cpu,
    check_attention_backend,
    tiled,
    use_attention_backend,
)
from vggrpo.backbones.pipelines.source import PipelineSource, fingerprint, load_module
from vggrpo.backbones.pipelines.tokens import check_token_ids, load_tokenizer, own_rules
from vggrpo.config.base import EfficiencySettings
from vggrpo.config.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)
IDLE_DEVICE = "cpu"
"""Where parts wait that are not in use, with `efficiency.offload`."""
TEXT_BATCH = 8
"""Prompts a forward pass of the text encoder; 512 tokens of an XXL encoder are large."""


class PipelineBackbone(VideoBackbone):
    """A diffusers pipeline of one denoiser, in a folder or a repository.

    Every part is loaded when first used: `velocity` loads the transformer, `encode_prompts` the tokenizer and
    the text encoder, `encode_video` and `decode_latents` the autoencoder.

    A family names its classes, and says how its parts are called: text, prediction, frames, and the sigma
    grid.

    Args:
        source: path of the pipeline's folder, or "owner/name".
        device: where the parts live.
        precision: "bfloat16" runs the denoiser under autocast; the autoencoder is always float32.
        weight_dtype: type in which transformer and text encoder are held; None is that of `precision`. What
            diffusers keeps in float32 (Wan's norms and time embedding) stays so.
        gradient_checkpointing: recompute the denoiser's blocks in the backward pass to save memory.
        flow_shift: shift of the sigma grid; None takes the pipeline's own.
        efficiency: memory and speed of the parts; by default PyTorch's and diffusers' own choices.
    """

    pipeline_class: ClassVar[Any]
    """diffusers' pipeline, by which `model_index.json` names the family."""
    transformer_class: ClassVar[Any]
    vae_class: ClassVar[Any]
    text_encoder_class: ClassVar[Any]
    max_text_length: ClassVar[int]
    """Tokens of a prompt at most; a tokenizer with a smaller `model_max_length` has its own."""
    shares_tokens: ClassVar[bool] = False
    """Whether diffusers' way to share out the denoiser's tokens was found to give the right gradients."""

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
            ValueError: if it is no pipeline of this family, or the types contradict each other.
            ConfigError: if there is no such attention backend.
        """
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is {precision!r}, expected 'float32' or 'bfloat16'")
        if weight_dtype is None:
            weight_dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        elif weight_dtype != torch.float32 and precision == "float32":
            raise ValueError(f"weight_dtype {weight_dtype} needs precision 'bfloat16', not 'float32'")
        if precision == "bfloat16":
            # Query and key norms that keep float32 weights under autocast: right, if not the fastest kernel.
            warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        self.source = PipelineSource(source)
        self.device = torch.device(device)
        self.precision = precision
        self.weight_dtype = weight_dtype
        self.gradient_checkpointing = gradient_checkpointing
        self.efficiency = efficiency or EfficiencySettings()
        if self.efficiency.attention_backend is not None:
            check_attention_backend(self.efficiency.attention_backend)
        found, expected = self.source.index.get("_class_name"), self.pipeline_class.__name__
        if found != expected:
            raise ValueError(f"{self.source.name} is a {found}, expected a {expected} (text to video)")
        self._transformer: Any = None
        self._vae: Any = None
        self._text_encoder: Any = None
        self._tokenizer: PreTrainedTokenizerFast | None = None
        self._in_use: nn.Module | None = None
        self._configure(flow_shift)

    @abstractmethod
    def _configure(self, flow_shift: float | None) -> None:
        """Reads and checks what the family needs of the configuration files.

        Raises:
            ValueError: if the pipeline is of a kind that the family does not support.
        """

    @property
    @abstractmethod
    def _patch_size(self) -> tuple[int, int]:
        """(height, width) in latents of what the denoiser takes as one token."""

    @abstractmethod
    def _encode_text(self, prompts: Sequence[str]) -> Tensor:
        """As `encode_prompts`, of a few prompts."""

    @abstractmethod
    def _predict(self, latents: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        """The velocity of one forward pass [B, C, T, H, W], float32; `sigma` [B], `embeds` [B, L, D].

        Called under the autocast of `precision`.
        """

    @abstractmethod
    def _encode_frames(self, frames: Tensor) -> Tensor:
        """As `encode_video`, of frames on the device."""

    @abstractmethod
    def _decode_frames(self, latents: Tensor) -> Tensor:
        """As `decode_latents`, of latents on the device."""

    @abstractmethod
    def _sampling_identity(self) -> dict[str, str | float]:
        """What determines the samples beside the weights and their types, fit for JSON."""

    @cached_property
    def text_fingerprint(self) -> str:
        tokens = self.source.folder("tokenizer")
        files = fingerprint(tokens, self.source.folder("text_encoder"))
        encoder = self.source.config("text_encoder")
        rules = own_rules(tokens, self.tokenizer, self.max_text_length, encoder)
        return hashlib.sha256(f"{files} {self.weight_dtype}{rules}".encode()).hexdigest()

    @cached_property
    def _denoiser_fingerprint(self) -> str:
        return fingerprint(self.source.folder("transformer"))

    def identity(self) -> dict[str, str | float]:
        return {
            "denoiser": self._denoiser_fingerprint,
            "autoencoder": self.latent_spec.fingerprint,
            "text_encoder": self.text_fingerprint,
            **self._sampling_identity(),
            "precision": self.precision,
            "weight_dtype": str(self.weight_dtype).removeprefix("torch."),
        }

    @property
    def transformer(self) -> Any:
        """The denoiser, with its LoRA if there is one."""
        if self._transformer is None:
            folder = self.source.folder("transformer")
            transformer = load_module(self.transformer_class, folder, self.weight_dtype)
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
    def vae(self) -> Any:
        """The autoencoder, float32."""
        if self._vae is None:
            self._vae = self._placed(load_module(self.vae_class, self.source.folder("vae")))
        self._use(self._vae)
        return self._vae

    @property
    def text_encoder(self) -> Any:
        """The text encoder."""
        if self._text_encoder is None:
            folder = self.source.folder("text_encoder")
            text_encoder = load_module(self.text_encoder_class, folder, self.weight_dtype)
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
        spec: LatentSpec = self.latent_spec
        # First, since the denoiser's multiple is one of the autoencoder's.
        patch_height, patch_width = self._patch_size
        for name, side, patch in (("height", height, patch_height), ("width", width, patch_width)):
            multiple = spec.spatial_stride * patch
            if side % multiple:
                lower = side // multiple * multiple
                raise ValueError(
                    f"{name} is {side}, but the denoiser needs a multiple of {multiple}; "
                    f"use {lower or multiple} or {lower + multiple}"
                )
        return spec.latent_shape(num_frames, height, width)

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            parts = [
                self._encode_text(prompts[start : start + TEXT_BATCH])
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
        self._check_levels(levels)
        levels = levels.float().expand(batch_size).to(latents.device)
        embeds = _of_batch(prompt_embeds, batch_size, "prompt_embeds")
        if cfg_scale == 1.0:
            return self._one_pass(latents, levels, embeds)
        if negative_prompt_embeds is None:
            raise ValueError(
                f"cfg_scale is {cfg_scale:g}, which needs negative_prompt_embeds; encode the negative prompt "
                "(for example the empty one), or use cfg_scale 1"
            )
        negative = _of_batch(negative_prompt_embeds, batch_size, "negative_prompt_embeds")
        if self.efficiency.cfg_batched:
            if negative.shape != embeds.shape:
                raise ValueError(
                    f"negative_prompt_embeds have {negative.shape[1]} tokens and prompt_embeds "
                    f"{embeds.shape[1]}: with efficiency.cfg_batched both must have the same number"
                )
            both = self._one_pass(torch.cat([latents] * 2), levels.repeat(2), torch.cat([embeds, negative]))
            velocity, unguided = both.chunk(2)
        else:
            velocity = self._one_pass(latents, levels, embeds)
            unguided = self._one_pass(latents, levels, negative)
        return unguided + cfg_scale * (velocity - unguided)

    def _one_pass(self, latents: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        enabled = self.precision == "bfloat16"
        with (
            torch.autocast(latents.device.type, torch.bfloat16, enabled=enabled),
            activations_on_cpu(self.efficiency.offload_activations, latents.device),
        ):
            return self._predict(latents, sigma, embeds)

    def _check_levels(self, sigma: Tensor) -> None:
        """Refuses noise levels at which the family's denoiser has no velocity."""

    def _check_latents(self, latents: Tensor) -> None:
        channels, (patch_height, patch_width) = self._latent_channels, self._patch_size
        if latents.ndim != 5 or latents.shape[1] != channels:
            raise ValueError(f"latents has shape {tuple(latents.shape)}, expected [B, {channels}, T, H, W]")
        if latents.shape[3] % patch_height or latents.shape[4] % patch_width:
            raise ValueError(
                f"latents are {latents.shape[3]}x{latents.shape[4]}, but the denoiser's patches are "
                f"{patch_height}x{patch_width}: both sides must be multiples"
            )

    @cached_property
    def _latent_channels(self) -> int:
        return int(self.source.config("transformer")["in_channels"])

    @torch.no_grad()
    def encode_video(self, frames: Tensor) -> Tensor:
        if frames.ndim != 5 or frames.shape[-1] != 3 or not frames.is_floating_point():
            raise ValueError(
                f"frames are {frames.dtype} of shape {tuple(frames.shape)}, expected floats in [0, 1] "
                "of shape [B, T, H, W, 3]"
            )
        self.latent_spec.latent_shape(*frames.shape[1:4])
        return self._encode_frames(frames.to(self.device, torch.float32))

    def decode_latents(self, latents: Tensor) -> Tensor:
        channels = self.latent_spec.channels
        if latents.ndim != 5 or latents.shape[1] != channels:
            raise ValueError(f"latents has shape {tuple(latents.shape)}, expected [B, {channels}, T, H, W]")
        with tiled(self.vae, self.efficiency.tiled_decoding):
            return self._decode_frames(latents.to(self.device, torch.float32))

    def add_lora(self, rank: int, alpha: float, targets: str = "attention", seed: int = 0) -> None:
        lora.add_lora(self.transformer, rank, alpha, targets, seed)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return lora.lora_parameters(self.transformer)

    def lora_disabled(self) -> AbstractContextManager[None]:
        return nullcontext() if self._transformer is None else lora.lora_disabled(self._transformer)

    def save_lora(self, folder: Path) -> None:
        lora.save_lora(self.transformer, folder, self.pipeline_class)

    def load_lora(self, folder: Path, scale: float = 1.0) -> None:
        lora.load_lora(self.transformer, folder, self.pipeline_class, scale)

    def load_loras(self, loras: Sequence[tuple[Path, float]]) -> None:
        lora.load_loras(self.transformer, loras, self.pipeline_class)

    def check_lora(self, folder: Path) -> None:
        config = self.source.config("transformer")
        lora_fit.check_lora(self.transformer_class, config, folder, self.source.name, self.pipeline_class)

    def shard(self, mesh: DeviceMesh) -> None:
        parallel.shard_frozen(self.transformer, mesh)

    def share_tokens(self, mesh: DeviceMesh, latent_shape: Sequence[int]) -> None:
        if not self.shares_tokens:
            raise ConfigError(
                f"context_parallel is {mesh['ulysses'].size()}, but {self.source.name} is a "
                f"{self.pipeline_class.__name__}, whose tokens cannot be shared out; leave it at 1"
            )
        _, views, height, width = latent_shape
        patch_height, patch_width = self._patch_size
        tokens = views * (height // patch_height) * (width // patch_width)
        parallel.require_divisible(tokens, mesh["ulysses"].size())
        parallel.share_tokens(self.transformer, mesh)

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


def _of_batch(embeds: Tensor, batch_size: int, name: str) -> Tensor:
    """Text embeddings of each sample [B, L, D], of as many or of a single one."""
    if embeds.ndim != 3 or len(embeds) not in (1, batch_size):
        raise ValueError(
            f"{name} has shape {tuple(embeds.shape)}, expected [B, L, D] with B = {batch_size} or 1"
        )
    return embeds.expand(batch_size, -1, -1)
