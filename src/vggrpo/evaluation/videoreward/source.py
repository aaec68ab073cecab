"""The files of a VideoReward checkpoint, in the layout in which it is published.

    model_config.json            how it was trained, how clips are sampled, means and deviations of the scores
    checkpoint-<step>/
        model.pth                the whole network, LoRA beside the base weights
        tokenizer/               with the three reward tokens

What the base model alone knows (its config.json) comes from a folder or repository of Qwen2-VL.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from vggrpo.config.errors import ConfigError
from vggrpo.config.models import HUB_ID
from vggrpo.evaluation.videoreward.template import PromptTemplate, find_template
from vggrpo.io import read_json

REPOSITORY = "KwaiVGI/VideoReward"
CONFIG_FILE = "model_config.json"
WEIGHTS = "model.pth"
BASE_CONFIG = "config.json"
TOKENIZER = "tokenizer.json"


class _Foreign(BaseModel):
    """A part of a file that others write: only what is needed here is read."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


class DataConfig(_Foreign):
    """How clips are shown to the network."""

    fps: PositiveFloat = 2.0
    max_frame_pixels: PositiveInt
    num_frames: None = None
    sample_type: Literal["uniform"] = "uniform"
    prompt_template_type: Literal["detailed_special"]


class NetworkConfig(_Foreign):
    """The base model, and the head on it."""

    model_name_or_path: str
    output_dim: Literal[1, 3]
    use_special_tokens: Literal[True]
    """The head reads at the reward tokens; heads that read the last token or the mean are not supported."""


class LoraSettings(_Foreign):
    """Of the LoRA, where there is one."""

    lora_r: PositiveInt = 16
    lora_alpha: PositiveInt = 32
    use_rslora: bool = False


class Normalisation(_Foreign):
    """Mean and standard deviation of each score, by which the published scores are made comparable."""

    VQ_mean: float
    VQ_std: PositiveFloat
    MQ_mean: float
    MQ_std: PositiveFloat
    TA_mean: float
    TA_std: PositiveFloat

    @property
    def means(self) -> tuple[float, float, float]:
        """Of VQ, MQ and TA."""
        return self.VQ_mean, self.MQ_mean, self.TA_mean

    @property
    def deviations(self) -> tuple[float, float, float]:
        """Of VQ, MQ and TA."""
        return self.VQ_std, self.MQ_std, self.TA_std


class CheckpointConfig(_Foreign):
    """model_config.json."""

    data: DataConfig = Field(alias="data_config")
    network: NetworkConfig = Field(alias="model_config")
    lora: LoraSettings = Field(LoraSettings(), alias="peft_lora_config")
    normalisation: Normalisation | None = Field(None, alias="inference_config")
    """Scores are not normalised if it is missing, as in the authors' code."""


@dataclass(frozen=True)
class VideoRewardSource:
    """Everything of a checkpoint but its weights, read and checked."""

    name: str
    config: CheckpointConfig
    weights: Path
    tokenizer: Path
    """A tokenizer.json."""
    base_config: dict[str, Any]
    """Of Qwen2-VL."""
    template: PromptTemplate


def locate_video_reward(name: str | Path, base: str | Path | None = None) -> VideoRewardSource:
    """The checkpoint in a folder, or in a Hugging Face repository, from which it is downloaded once.

    Args:
        name: a folder, "owner/name" or "owner/name@revision".
        base: folder or repository of the base model; the one that model_config.json names if None.

    Raises:
        ConfigError: if there is no such place, or the checkpoint is of a kind that is not supported.
        FileNotFoundError: if a file is missing or cannot be fetched.
        CorruptFileError: if a file is damaged.
    """
    folder = _folder(name, CONFIG_FILE, f"checkpoint-*/{WEIGHTS}", f"checkpoint-*/tokenizer/{TOKENIZER}")
    config = read_config(folder / CONFIG_FILE)
    checkpoint = _latest_checkpoint(folder)
    base_folder = _folder(config.network.model_name_or_path if base is None else base, BASE_CONFIG, TOKENIZER)
    own_tokenizer = checkpoint / "tokenizer" / TOKENIZER
    return VideoRewardSource(
        name=str(name),
        config=config,
        weights=checkpoint / WEIGHTS,
        tokenizer=own_tokenizer if own_tokenizer.is_file() else _existing(base_folder / TOKENIZER),
        base_config=_base_config(_existing(base_folder / BASE_CONFIG)),
        template=find_template(folder),
    )


def read_config(path: Path) -> CheckpointConfig:
    """model_config.json.

    Raises:
        ConfigError: if it describes a checkpoint that is not supported here; names every reason.
        FileNotFoundError: if there is none.
        CorruptFileError: if it is not JSON.
    """
    try:
        return CheckpointConfig.model_validate(read_json(_existing(path)))
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']} (it is {problem['input']!r})"
            for problem in error.errors()
        ]
        raise ConfigError("\n".join(problems)) from error


def _base_config(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or content.get("model_type") != "qwen2_vl":
        raise ConfigError(f"{path} is no config.json of Qwen2-VL, on which VideoReward is built")
    return content


def _folder(name: str | Path, *patterns: str) -> Path:
    """The folder, or the local copy of a repository's files of these patterns."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    matched = HUB_ID.fullmatch(str(name))
    if not matched:
        raise ConfigError(
            f"{name} is neither a folder nor a Hugging Face repository (owner/name or owner/name@revision)"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            snapshot_download(matched["id"], revision=matched["revision"], allow_patterns=list(patterns))
        )
    except (HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(
            f"{name} is no local folder, and as a Hugging Face repository it cannot be fetched "
            f"({type(error).__name__}): check the path, or the network and the access rights"
        ) from error


def _latest_checkpoint(folder: Path) -> Path:
    steps = [
        int(step)
        for path in folder.glob(f"checkpoint-*/{WEIGHTS}")
        if (step := path.parent.name.removeprefix("checkpoint-")).isdecimal()
    ]
    if not steps:
        raise FileNotFoundError(
            f"{folder} holds no checkpoint-<step>/{WEIGHTS}; an adapter without the whole network is not "
            "supported"
        )
    return folder / f"checkpoint-{max(steps)}"


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}, which VideoReward needs; get a fresh copy")
    return path
