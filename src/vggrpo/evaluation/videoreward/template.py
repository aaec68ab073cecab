"""The instruction that VideoReward was trained to read.

Its words are part of the weights: other words give other scores. They are not part of this project; the file
that the authors published is read instead, as data.
"""

import ast
import hashlib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from vggrpo.config.errors import ConfigError, CorruptFileError
from vggrpo.evaluation.cache import cache_folder
from vggrpo.io import write_bytes

REWARD_TOKENS = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
"""The places where the head reads visual quality, motion quality and text alignment."""
PLACEHOLDER = "{text_prompt}"
TEMPLATE_NAME = "DETAILED_PROMPT_WITH_SPECIAL_TOKEN"
FILE_NAME = "prompt_template.py"
PUBLISHED_URL = (
    "https://raw.githubusercontent.com/KwaiVGI/VideoAlign/219ab9db64c045e5181a2202d11f686439351292/"
    + FILE_NAME
)
PUBLISHED_SHA256 = "8fb42f91fd7440a1c9a377e78f36d67da6132eb348f402eecbeb57e41f138ae9"
TIMEOUT = 20.0
"""Seconds."""


@dataclass(frozen=True)
class PromptTemplate:
    """The instruction, with `{text_prompt}` where the video's prompt belongs."""

    text: str

    @property
    def sha256(self) -> str:
        """Names the words in results."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, prompt: str) -> str:
        """The instruction for a video of that prompt."""
        return self.text.format(text_prompt=prompt)


def find_template(checkpoint: Path) -> PromptTemplate:
    """The template beside a checkpoint, else the published one, downloaded once.

    Args:
        checkpoint: the folder of model_config.json, where `prompt_template.py` may lie.

    Raises:
        ConfigError: if there is none and it cannot be downloaded.
        CorruptFileError: if the file is not the published one, or holds no usable template.
    """
    beside, cached = checkpoint / FILE_NAME, cache_folder("videoreward") / FILE_NAME
    if beside.is_file():
        return read_template(beside)
    if not cached.is_file():
        write_bytes(cached, _download(beside))
    return read_template(cached)


def read_template(path: Path) -> PromptTemplate:
    """The template in a Python file, which is parsed and not run.

    Raises:
        CorruptFileError: if it holds none, or one that the network cannot be asked with.
    """
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError) as error:
        raise CorruptFileError(f"{path} is no Python file ({error}); get a fresh copy") from error
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and [ast.unparse(target) for target in node.targets] == [TEMPLATE_NAME]
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            return _checked(PromptTemplate(node.value.value), path)
    raise CorruptFileError(f"{path} defines no text {TEMPLATE_NAME}; get a fresh copy from {PUBLISHED_URL}")


def _checked(template: PromptTemplate, path: Path) -> PromptTemplate:
    # The order matters beyond the head: what stands before the prompt cannot depend on it.
    parts = (*REWARD_TOKENS[:2], PLACEHOLDER, REWARD_TOKENS[2])
    places = [template.text.find(part) for part in parts]
    if places != sorted(places) or places[0] < 0 or any(template.text.count(part) != 1 for part in parts):
        raise CorruptFileError(
            f"the template in {path} does not hold {', '.join(parts)} once each and in this order"
        )
    try:
        template.fill("")
    except (KeyError, IndexError, ValueError) as error:
        raise CorruptFileError(
            f"the template in {path} has braces beside {PLACEHOLDER} ({error}); write them doubled"
        ) from error
    return template


def _download(beside: Path) -> bytes:
    try:
        with urllib.request.urlopen(PUBLISHED_URL, timeout=TIMEOUT) as answer:
            content: bytes = answer.read()
    except OSError as error:
        raise ConfigError(
            f"VideoReward's prompt template cannot be downloaded from {PUBLISHED_URL} "
            f"({getattr(error, 'reason', error)}); copy that file to {beside}"
        ) from error
    if hashlib.sha256(content).hexdigest() != PUBLISHED_SHA256:
        raise CorruptFileError(
            f"what {PUBLISHED_URL} answers is not the published file (its SHA-256 differs); copy the file to "
            f"{beside}"
        )
    return content
