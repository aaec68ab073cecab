"""A published checkpoint to a network: parameter names, LoRA, weights."""

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import Qwen2VLModel
from transformers.initialization import no_init_weights

from vggrpo.backbones.checkpoint import SHOWN_PROBLEMS, read_checkpoint
from vggrpo.config.errors import CorruptFileError
from vggrpo.evaluation.videoreward.network import VideoRewardNetwork, backbone_config
from vggrpo.evaluation.videoreward.source import LoraSettings, VideoRewardSource

PEFT_PREFIX = "base_model.model."
PREFIXES = (
    # As transformers 5 names them, then as those before did.
    ("model.language_model.", "backbone.language_model."),
    ("model.visual.", "backbone.visual."),
    ("model.", "backbone.language_model."),
    ("visual.", "backbone.visual."),
    ("rm_head.", "head."),
)
UNUSED = "lm_head."
EMBEDDING = "backbone.language_model.embed_tokens.weight"
LORA = ".lora_A.default.weight"


def load_network(source: VideoRewardSource, dtype: torch.dtype) -> VideoRewardNetwork:
    """The network on the CPU, in evaluation mode.

    Its LoRA stays beside the weights: added to bfloat16 weights, small updates would be rounded away. Only
    tensors are read from the file; no code in it is run.

    Raises:
        CorruptFileError: if the file cannot be read, or its tensors are not those of the network.
    """
    tensors = own_tensors(read_checkpoint(source.weights), source.weights)
    if EMBEDDING not in tensors:
        raise CorruptFileError(f"{source.weights} holds no embedding of tokens; it is no VideoReward network")
    # Nothing is initialised: every tensor is replaced.
    with no_init_weights():
        backbone = Qwen2VLModel(backbone_config(source.base_config, len(tensors[EMBEDDING])))
        network = VideoRewardNetwork(backbone, source.config.network.output_dim)
    _add_lora(
        network, [name.removesuffix(LORA) for name in tensors if name.endswith(LORA)], source.config.lora
    )
    problems = _problems(tensors, network.state_dict())
    if problems:
        shown = "; ".join(problems[:SHOWN_PROBLEMS])
        rest = len(problems) - SHOWN_PROBLEMS
        raise CorruptFileError(
            f"{source.weights} does not fit: {shown}" + (f"; and {rest} more" if rest > 0 else "")
        )
    network.load_state_dict({key: value.to(dtype) for key, value in tensors.items()}, assign=True)
    return network.requires_grad_(False).eval()


def own_tensors(published: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors under the names of `VideoRewardNetwork`.

    Raises:
        CorruptFileError: if a name is no part of such a network.
    """
    tensors: dict[str, Tensor] = {}
    for key, value in published.items():
        name = key.removeprefix(PEFT_PREFIX)
        if name.startswith(UNUSED):
            continue
        prefix = next(((old, new) for old, new in PREFIXES if name.startswith(old)), None)
        if prefix is None:
            raise CorruptFileError(f"{path} holds {key}, which is no part of a VideoReward network")
        tensors[prefix[1] + name.removeprefix(prefix[0])] = value
    return tensors


def _add_lora(network: nn.Module, modules: list[str], settings: LoraSettings) -> None:
    """Puts a LoRA beside each of these linear layers; names that the network does not have are left to the
    comparison of all tensors."""
    wanted = set(modules)
    targets = [
        name for name, module in network.named_modules() if name in wanted and isinstance(module, nn.Linear)
    ]
    if targets:
        lora = LoraConfig(
            r=settings.lora_r,
            lora_alpha=settings.lora_alpha,
            use_rslora=settings.use_rslora,
            target_modules=targets,
        )
        inject_adapter_in_model(lora, network)


def _problems(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in own if name not in tensors]
    unknown = [f"{name} is unknown" for name in tensors if name not in own]
    shapes = [
        f"{name} is {list(tensors[name].shape)} where {list(value.shape)} is expected"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    return [*missing, *unknown, *shapes]
