"""The micro family's video model, untrained: the classes of Wan at tiny dimensions, and their folder.

Everything here is a plain diffusers/transformers class. A saved folder is a complete `WanPipeline` that
`WanPipeline.from_pretrained(folder)` opens without this package.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

ModuleT = TypeVar("ModuleT", bound=nn.Module)

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
"""Ids 0, 1 and 2, as in the UMT5 tokenizer's order of pad and end."""


@dataclass(frozen=True)
class MicroVAEConfig:
    """Dimensions of the causal video autoencoder: 4x in time, 2^(len(dim_mult) - 1) in space."""

    base_dim: int = 16
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: int = 1
    temporal_downsample: tuple[bool, ...] = (True, True)
    """Whether each of the len(dim_mult) - 1 downsamplings also halves time; exactly two must: the class
    reads frames in chunks of four whatever its configuration says."""


@dataclass(frozen=True)
class MicroTransformerConfig:
    """Dimensions of the denoiser."""

    num_attention_heads: int = 6
    attention_head_dim: int = 32
    num_layers: int = 6
    ffn_dim: int = 576
    patch_size: tuple[int, int, int] = (1, 2, 2)
    freq_dim: int = 256


@dataclass(frozen=True)
class MicroTextConfig:
    """Dimensions of the text encoder."""

    d_model: int = 64
    d_kv: int = 16
    d_ff: int = 128
    num_layers: int = 2
    num_heads: int = 4


def build_vae(config: MicroVAEConfig | None = None) -> AutoencoderKLWan:
    """An untrained autoencoder with latent mean 0 and deviation 1 (see `set_latent_statistics`).

    Initialised from torch's global generator: seed it first.

    Raises:
        ValueError: if the downsamplings do not match `dim_mult` or do not halve time exactly twice.
    """
    config = config or MicroVAEConfig()
    if len(config.temporal_downsample) != len(config.dim_mult) - 1:
        raise ValueError(
            f"temporal_downsample is {config.temporal_downsample}, but dim_mult {config.dim_mult} "
            f"makes {len(config.dim_mult) - 1} downsamplings: give one entry for each of them"
        )
    if sum(config.temporal_downsample) != 2:
        raise ValueError(
            f"temporal_downsample is {config.temporal_downsample}, but AutoencoderKLWan encodes frames in "
            "chunks of four: exactly two entries must be True"
        )
    return AutoencoderKLWan(
        base_dim=config.base_dim,
        z_dim=config.z_dim,
        dim_mult=list(config.dim_mult),
        num_res_blocks=config.num_res_blocks,
        attn_scales=[],
        temperal_downsample=list(config.temporal_downsample),
        latents_mean=[0.0] * config.z_dim,
        latents_std=[1.0] * config.z_dim,
        scale_factor_temporal=4,
        scale_factor_spatial=2 ** (len(config.dim_mult) - 1),
    )


def set_latent_statistics(vae: AutoencoderKLWan, mean: Tensor, std: Tensor) -> None:
    """Stores the measured mean and standard deviation [z_dim] of the latents in the configuration.

    Raises:
        ValueError: if a shape is not [z_dim], a value is not finite, or a deviation is not positive.
    """
    for name, value in (("mean", mean), ("std", std)):
        if value.shape != (vae.config.z_dim,):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, expected ({vae.config.z_dim},): one per channel"
            )
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} holds values that are not finite: {value.tolist()}")
    if (std <= 0).any():
        raise ValueError(
            f"std must be positive in every channel, but is {std.tolist()}: a channel carries nothing"
        )
    vae.register_to_config(
        latents_mean=[float(x) for x in mean.double()], latents_std=[float(x) for x in std.double()]
    )


def build_transformer(
    latent_channels: int, text_dim: int, config: MicroTransformerConfig | None = None
) -> WanTransformer3DModel:
    """An untrained denoiser over `latent_channels` (the autoencoder's z_dim) and text features of `text_dim`.

    Initialised from torch's global generator: seed it first.
    """
    config = config or MicroTransformerConfig()
    return WanTransformer3DModel(
        patch_size=config.patch_size,
        num_attention_heads=config.num_attention_heads,
        attention_head_dim=config.attention_head_dim,
        in_channels=latent_channels,
        out_channels=latent_channels,
        text_dim=text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
    )


def build_tokenizer(vocabulary: Sequence[str], max_length: int = 32) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with a fixed vocabulary: the same list gives the same ids on every machine.

    Text is lower-cased and split into words and runs of punctuation; every prompt ends in `</s>`.
    Id of word i is 3 + i; words outside the vocabulary become `<unk>`.

    Raises:
        ValueError: if a word occurs twice, is a special token, or would never come out of the splitting.
    """
    splitter = pre_tokenizers.Whitespace()
    for word in vocabulary:
        if word in SPECIAL_TOKENS:
            raise ValueError(
                f"vocabulary contains the special token {word!r}: leave it out, it is added first"
            )
        if word != word.lower() or [piece for piece, _ in splitter.pre_tokenize_str(word)] != [word]:
            raise ValueError(
                f"vocabulary word {word!r} can never be produced: text is lower-cased and split at spaces "
                "and punctuation, so list its parts instead"
            )
    if len(set(vocabulary)) != len(vocabulary):
        twice = sorted({word for word in vocabulary if list(vocabulary).count(word) > 1})
        raise ValueError(f"vocabulary lists {', '.join(map(repr, twice))} more than once")
    ids = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *vocabulary))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", ids["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_length,
        padding_side="right",
        truncation_side="right",
    )


def build_text_encoder(vocabulary_size: int, config: MicroTextConfig | None = None) -> UMT5EncoderModel:
    """An untrained UMT5 encoder for `vocabulary_size` token ids (`len(tokenizer)`).

    Initialised from torch's global generator: seed it first.
    """
    config = config or MicroTextConfig()
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocabulary_size,
            d_model=config.d_model,
            d_kv=config.d_kv,
            d_ff=config.d_ff,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            pad_token_id=0,
            eos_token_id=1,
        )
    ).eval()


def build_scheduler(flow_shift: float = 3.0, predicts_clean: bool = False) -> UniPCMultistepScheduler:
    """Wan's own sampler: flow sigmas, shifted towards noise by `flow_shift`.

    `predicts_clean`: the denoiser predicts the clean latents instead of the velocity.
    """
    return UniPCMultistepScheduler(
        prediction_type="sample" if predicts_clean else "flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=flow_shift,
    )


def save_pipeline(
    folder: Path,
    *,
    vae: AutoencoderKLWan,
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    scheduler: UniPCMultistepScheduler,
    latents_mean: Tensor | None = None,
    latents_std: Tensor | None = None,
    storage_dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a complete diffusers `WanPipeline` folder.

    The modules passed in stay as they are; with a half `storage_dtype` the files hold rounded weights, so
    evaluate what was reloaded, not what was in memory. The folder is written in place: the caller makes it
    atomic (write to a temporary folder, then rename).

    Args:
        folder: made if it does not exist.
        latents_mean, latents_std: [z_dim], stored in the autoencoder's configuration; both or neither.
        storage_dtype: float32, float16 or bfloat16. The text encoder is always float32: transformers computes
            in the type that it finds, while diffusers computes in float32 unless told otherwise.

    Raises:
        ValueError: if only one of the statistics is given, the parts do not fit together, or a weight leaves
            the range of `storage_dtype`.
    """
    if (latents_mean is None) != (latents_std is None):
        raise ValueError("latents_mean and latents_std must be given together")
    if transformer.config.in_channels != vae.config.z_dim:
        raise ValueError(
            f"transformer takes {transformer.config.in_channels} latent channels, but the autoencoder makes "
            f"{vae.config.z_dim}"
        )
    if transformer.config.text_dim != text_encoder.config.d_model:
        raise ValueError(
            f"transformer takes text features of width {transformer.config.text_dim}, but the text encoder "
            f"makes {text_encoder.config.d_model}"
        )
    if len(tokenizer) > text_encoder.config.vocab_size:
        raise ValueError(
            f"tokenizer has {len(tokenizer)} ids, but the text encoder knows {text_encoder.config.vocab_size}"
        )
    stored_vae = stored_copy(vae, storage_dtype)
    if latents_mean is not None and latents_std is not None:
        set_latent_statistics(stored_vae, latents_mean, latents_std)
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=stored_copy(text_encoder, torch.float32),
        vae=stored_vae,
        scheduler=scheduler,
        transformer=stored_copy(transformer, storage_dtype),
    )
    pipeline.save_pretrained(folder)
    _name_tokenizer_class(folder)


def stored_copy(module: ModuleT, dtype: torch.dtype) -> ModuleT:
    """A copy of `module` with its weights in `dtype`; what the class itself keeps in float32 stays so.

    Raises:
        ValueError: if a weight is not finite in `dtype` (float16 ends at 65504).
    """
    stored = copy.deepcopy(module)
    float32_parts = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for name, parameter in stored.named_parameters():
        if float32_parts.isdisjoint(name.split(".")):
            parameter.data = parameter.data.to(dtype)
        if not torch.isfinite(parameter).all():
            raise ValueError(
                f"{name} of {type(module).__name__} is not finite as {dtype}: the training diverged, or the "
                "weights need a storage type of wider range"
            )
    return stored


def _name_tokenizer_class(folder: Path) -> None:
    """Names the tokenizer's class in a way that transformers 4 and 5 both resolve."""
    index = folder / "model_index.json"
    content = json.loads(index.read_text())
    content["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    index.write_text(json.dumps(content, indent=2) + "\n")
