"""Prompts to token ids, exactly as the pipeline's tokenizer describes them."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerFast, T5TokenizerFast

from vggrpo.backbones.pipelines.source import SENTENCEPIECE_FILE, TOKENIZER_FILE, read_json
from vggrpo.config.errors import ConfigError, CorruptFileError


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer exactly as tokenizer.json describes it; without one, T5's as spiece.model does.

    transformers' T5 tokenizer classes would rebuild a tokenizer.json and change ids, so the plain fast class
    is used for all that have one.

    Raises:
        FileNotFoundError: if there is neither file.
        ConfigError: if there is only spiece.model, and the package that reads it is not installed.
        CorruptFileError: if it cannot be read.
    """
    file, pieces = folder / TOKENIZER_FILE, folder / SENTENCEPIECE_FILE
    tokenizer_class = PreTrainedTokenizerFast
    if not file.is_file():
        if not pieces.is_file():
            raise FileNotFoundError(f"there is no file {file}: get a complete copy of the model")
        if find_spec("sentencepiece") is None:
            raise ConfigError(
                f"{pieces} is read by the package sentencepiece, which is not installed: "
                "pip install 'vggrpo[ltx]'"
            )
        file, tokenizer_class = pieces, T5TokenizerFast
    try:
        return tokenizer_class.from_pretrained(folder)
    except ValueError as error:
        raise CorruptFileError(
            f"{file} or a file beside it is damaged ({error}); get a fresh copy"
        ) from error


def check_token_ids(tokenizer: PreTrainedTokenizerFast, text_encoder: Any) -> None:
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


def tokenize(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], most: int, clean: Callable[[str], str] = str
) -> BatchEncoding:
    """Token ids and attention mask [N, L]; L is `most`, or the tokenizer's own limit where that is smaller.

    Prompts of more than L - 1 tokens are cut. `clean` is what the pipeline does to a prompt beforehand.

    Raises:
        ValueError: if there is no prompt.
        TypeError: if `prompts` is a single string.
    """
    if isinstance(prompts, str):
        raise TypeError(f"prompts is the string {prompts!r}; expected a list of prompts")
    if not prompts:
        raise ValueError("prompts is empty; give at least one")
    return tokenizer(
        [clean(prompt) for prompt in prompts],
        padding="max_length",
        max_length=text_length(tokenizer, most),
        truncation=True,
        return_tensors="pt",
    )


def own_rules(folder: Path, tokenizer: PreTrainedTokenizerFast, most: int, text_encoder: Any) -> str:
    """Where the files beside tokenizer.json depart from it and from the text encoder's configuration: in the
    length of a text, and in the ids of padding and end. Empty if they do not."""
    file = folder / TOKENIZER_FILE
    saved = read_json(file) if file.is_file() else {}
    usual = min(most, (saved.get("truncation") or {}).get("max_length", most))
    rules = (
        ("length", text_length(tokenizer, most), usual),
        ("pad", tokenizer.pad_token_id, text_encoder.get("pad_token_id")),
        ("end", tokenizer.eos_token_id, text_encoder.get("eos_token_id")),
    )
    return "".join(f" {name} {value}" for name, value, expected in rules if value != expected)


def text_length(tokenizer: PreTrainedTokenizerFast, most: int) -> int:
    """Tokens that every prompt is padded or cut to."""
    return min(most, tokenizer.model_max_length)
