"""Prompts to text embeddings, as WanPipeline makes them."""

import html
import re
from collections.abc import Sequence

import ftfy
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from vggrpo.backbones.pipelines.tokens import tokenize

MAX_TEXT_LENGTH = 512
"""Tokens that Wan was trained with; a tokenizer with a smaller `model_max_length` has its own."""


def clean_prompt(prompt: str) -> str:
    """Repairs broken Unicode, resolves HTML entities (twice) and collapses white space, as WanPipeline
    does."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return re.sub(r"\s+", " ", text).strip()


def encode_text(
    text_encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]
) -> Tensor:
    """Text embeddings [N, L, D] in float32, zero past each prompt's end token. Differentiable in the encoder.

    Prompts of more than L - 1 tokens are cut, as in WanPipeline.

    Raises:
        ValueError: if there is no prompt.
        TypeError: if `prompts` is a single string.
    """
    tokens = tokenize(tokenizer, prompts, MAX_TEXT_LENGTH, clean_prompt)
    device = next(text_encoder.parameters()).device
    mask = tokens.attention_mask.to(device)
    embeds = text_encoder(tokens.input_ids.to(device), mask).last_hidden_state.float()
    return torch.where(mask.bool().unsqueeze(-1), embeds, 0.0)
