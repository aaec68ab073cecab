"""Prompts to text embeddings, as WanPipeline makes them."""

import html
import re
from collections.abc import Sequence
from pathlib import Path

import ftfy
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from vggrpo.config.errors import CorruptFileError

MAX_TEXT_LENGTH = 512
"""Tokens that Wan was trained with; a tokenizer with a smaller `model_max_length` has its own."""


def clean_prompt(prompt: str) -> str:
    """Repairs broken Unicode, resolves HTML entities (twice) and collapses white space, as WanPipeline
    does."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return re.sub(r"\s+", " ", text).strip()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer exactly as tokenizer.json describes it.

    transformers' T5 tokenizer classes would rebuild it and change ids, so the plain fast class is used for
    all.

    Raises:
        FileNotFoundError: if there is no tokenizer.json.
        CorruptFileError: if it cannot be read.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}: get a complete copy of the model")
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except ValueError as error:
        raise CorruptFileError(
            f"{file} or a file beside it is damaged ({error}); get a fresh copy"
        ) from error


def text_length(tokenizer: PreTrainedTokenizerFast) -> int:
    """Tokens that every prompt is padded or cut to."""
    return min(MAX_TEXT_LENGTH, tokenizer.model_max_length)


def check_token_ids(tokenizer: PreTrainedTokenizerFast, text_encoder: UMT5EncoderModel) -> None:
    """Verifies that tokenizer and encoder mean the same ids.

    Raises:
        CorruptFileError: if padding, end or the number of ids differ.
    """
    config = text_encoder.config
    for name, of_tokenizer, of_encoder in (
        ("padding", tokenizer.pad_token_id, config.pad_token_id),
        ("end", tokenizer.eos_token_id, config.eos_token_id),
    ):
        if of_tokenizer != of_encoder:
            raise CorruptFileError(
                f"the tokenizer's {name} id is {of_tokenizer}, but the text encoder's is {of_encoder}: "
                "the two folders belong to different models"
            )
    if len(tokenizer) > config.vocab_size:
        raise CorruptFileError(
            f"the tokenizer has {len(tokenizer)} ids, but the text encoder only {config.vocab_size}: "
            "the two folders belong to different models"
        )


def encode_text(
    text_encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]
) -> Tensor:
    """Text embeddings [N, L, D] in float32, zero past each prompt's end token. Differentiable in the encoder.

    Prompts of more than L - 1 tokens are cut, as in WanPipeline.

    Raises:
        ValueError: if there is no prompt.
        TypeError: if `prompts` is a single string.
    """
    if isinstance(prompts, str):
        raise TypeError(f"prompts is the string {prompts!r}; expected a list of prompts")
    if not prompts:
        raise ValueError("prompts is empty; give at least one")
    tokens = tokenizer(
        [clean_prompt(prompt) for prompt in prompts],
        padding="max_length",
        max_length=text_length(tokenizer),
        truncation=True,
        return_tensors="pt",
    )
    device = next(text_encoder.parameters()).device
    mask = tokens.attention_mask.to(device)
    embeds = text_encoder(tokens.input_ids.to(device), mask).last_hidden_state.float()
    return torch.where(mask.bool().unsqueeze(-1), embeds, 0.0)
