"""The dimensions of the published Wan pipelines, for plans that are made before the weights are here."""

from dataclasses import dataclass
from typing import Any

from vggrpo.backbones.pipelines.source import PipelineSource
from vggrpo.backbones.pipelines.tokens import load_tokenizer, text_length
from vggrpo.backbones.wan.text import MAX_TEXT_LENGTH
from vggrpo.config.errors import ConfigError
from vggrpo.config.models import resolve_model

TRANSFORMER = {
    "patch_size": (1, 2, 2),
    "attention_head_dim": 128,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
}
WAN_21_VAE: dict[str, Any] = {"z_dim": 16, "scale_factor_spatial": 8, "scale_factor_temporal": 4}
WAN_22_VAE: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
    # Their values cost nothing; the lists only have to be as long as z_dim.
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
UMT5_XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


Config = dict[str, Any]


@dataclass(frozen=True)
class PipelineShape:
    """The dimensions of a pipeline's parts, as in their config.json."""

    transformer: Config
    vae: Config
    text_encoder: Config
    text_length: int = MAX_TEXT_LENGTH
    """Tokens that every prompt is padded or cut to."""


def _wan(heads: int, layers: int, ffn_dim: int, channels: int, vae: Config) -> PipelineShape:
    own = {
        "num_attention_heads": heads,
        "num_layers": layers,
        "ffn_dim": ffn_dim,
        "in_channels": channels,
        "out_channels": channels,
    }
    return PipelineShape(TRANSFORMER | own, vae, UMT5_XXL)


OFFICIAL: dict[str, PipelineShape] = {
    "wan2.1-1.3b": _wan(12, 30, 8960, 16, WAN_21_VAE),
    "wan2.1-14b": _wan(40, 40, 13824, 16, WAN_21_VAE),
    "wan2.2-5b": _wan(24, 30, 14336, 48, WAN_22_VAE),
}
"""By the names of models.yaml."""


def pipeline_shape(name: str) -> PipelineShape:
    """The dimensions of a video model; loads no weights, and of the published models no file at all.

    Raises:
        ConfigError: if there is no such model, or it is no Wan model.
        FileNotFoundError, CorruptFileError: if a folder lacks a configuration, or it is damaged.
    """
    model = resolve_model(name, "video")
    if model.name in OFFICIAL:
        return OFFICIAL[model.name]
    location = model.folder or model.repository
    assert location is not None
    source = PipelineSource(location)
    found = source.index.get("_class_name")
    if found != "WanPipeline":
        raise ConfigError(
            f"{name} is a {found}, and a plan can be made for Wan models only; run it without --dry-run "
            "with few steps and measure it"
        )
    transformer, vae, text_encoder = (source.config(part) for part in ("transformer", "vae", "text_encoder"))
    tokenizer = load_tokenizer(source.folder("tokenizer"))
    return PipelineShape(transformer, vae, text_encoder, text_length(tokenizer, MAX_TEXT_LENGTH))
