"""Prompts to text embeddings, as LTXPipeline makes them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from vggrpo.backbones.pipelines.tokens import tokenize

MAX_TEXT_LENGTH = 128
"""The pipeline's own; a tokenizer with a smaller `model_max_length` has its own."""


def encode_text(
    text_encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]
) -> Tensor:
    """Text embeddings [N, L, D] in float32, zero past each prompt's end token.

    The encoder itself reads the padding too, as in LTXPipeline; only the denoiser is kept from it
    (`attention_mask`).

    Raises:
        ValueError: if there is no prompt.
        TypeError: if `prompts` is a single string.
    """
    tokens = tokenize(tokenizer, prompts, MAX_TEXT_LENGTH)
    device = next(text_encoder.parameters()).device
    embeds = text_encoder(tokens.input_ids.to(device)).last_hidden_state.float()
    return torch.where(tokens.attention_mask.to(device).bool().unsqueeze(-1), embeds, 0.0)


def attention_mask(embeds: Tensor) -> Tensor:
    """Which tokens of embeddings [B, L, D] are of the prompt, bool [B, L]: those that are not zero.

    Embeddings carry their mask in their zeros, so that caches and batches need no second tensor. An encoder
    ends in a norm, which makes no token of a prompt zero.
    """
    return embeds.any(dim=-1)
