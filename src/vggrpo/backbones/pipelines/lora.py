"""LoRA on a video transformer of diffusers, in the file format of diffusers."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from torch import nn

from vggrpo.config.errors import CorruptFileError
from vggrpo.io import atomic_file, make_generator

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name by which `pipe.load_lora_weights(folder)` finds the file."""
ADAPTER = "default"
PREFIX = "transformer."
"""Of the names in a file by diffusers."""

LoraTargets = Literal["attention", "attention+ffn"]
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("net.0.proj", "net.2")
FEED_FORWARD_NAMES = ("ffn", "ff")
"""A block's feed-forward network, as Wan and as LTX-Video call it."""


def add_lora(transformer: Any, rank: int, alpha: float, targets: str = "attention", seed: int = 0) -> None:
    """Adds trainable LoRA layers, float32, to every attention (and feed-forward) projection of the blocks.

    A ~ N(0, 1/rank^2), the same for a `seed` on every device, and B = 0: the policy starts as the base model.

    Raises:
        ValueError: if there is LoRA already, a number is out of range, or a target matches no module.
    """
    if has_lora(transformer):
        raise ValueError("the model has LoRA layers already; load the base model again to start afresh")
    if targets not in get_args(LoraTargets):
        raise ValueError(f"targets is {targets!r}, expected one of {', '.join(get_args(LoraTargets))}")
    if rank < 1:
        raise ValueError(f"rank is {rank}, expected at least 1")
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}, expected a positive number")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        init_lora_weights="gaussian",
        target_modules=_target_modules(transformer, targets),
    )
    with torch.random.fork_rng(devices=[]):
        transformer.add_adapter(config, adapter_name=ADAPTER)
    _make_trainable(transformer)
    for name, parameter in lora_parameters(transformer).items():
        if ".lora_A." in name:
            start = torch.randn(parameter.shape, generator=make_generator(seed, "lora", name)) / rank
            parameter.data.copy_(start)


def _target_modules(transformer: Any, targets: str) -> list[str]:
    """The ends of the names of the layers that get LoRA."""
    names = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
    chosen = list(ATTENTION)
    if targets == "attention+ffn":
        own = next((own for own in FEED_FORWARD_NAMES if any(f".{own}." in name for name in names)), "ffn")
        chosen += [f"{own}.{layer}" for layer in FEED_FORWARD]
    for target in chosen:
        if not any(name.endswith(f".{target}") for name in names):
            raise ValueError(f"LoRA target {target} matches no layer of {type(transformer).__name__}")
    return chosen


def has_lora(transformer: Any) -> bool:
    """Whether the transformer carries LoRA layers."""
    return any(isinstance(module, BaseTunerLayer) for module in transformer.modules())


def lora_parameters(transformer: Any, adapter: str = ADAPTER) -> dict[str, nn.Parameter]:
    """The LoRA parameters of an adapter by their names in the transformer, float32.

    Raises:
        ValueError: if there are none.
    """
    parameters = {name: p for name, p in transformer.named_parameters() if f".{adapter}." in name}
    if not parameters:
        raise ValueError("the model has no LoRA layers: call add_lora or load_lora first")
    return parameters


@contextmanager
def lora_disabled(transformer: Any) -> Iterator[None]:
    """Within the context the transformer computes exactly what the base model does. May be nested.

    Leave the context before `backward`: while it lasts the LoRA parameters do not require gradients.
    """
    layers = [module for module in transformer.modules() if isinstance(module, BaseTunerLayer)]
    if not layers or layers[0].disable_adapters:
        yield
        return
    transformer.disable_adapters()
    try:
        yield
    finally:
        transformer.enable_adapters()


def save_lora(transformer: Any, folder: Path, pipeline: Any) -> Path:
    """Writes the LoRA weights with rank and alpha: plain `pipe.load_lora_weights(folder)` gives the policy.

    `pipeline` is the class of `pipe`.

    Raises:
        ValueError: if there are no LoRA layers, or they were loaded with a scale other than 1, which the
            format cannot hold.
    """
    lora_parameters(transformer)
    layer: Any = next(module for module in transformer.modules() if isinstance(module, BaseTunerLayer))
    if layer.scaling[ADAPTER] != layer.lora_alpha[ADAPTER] / layer.r[ADAPTER]:
        raise ValueError(
            "the LoRA was loaded with a scale other than 1, which the file cannot hold: "
            "load it with scale 1 to save it again"
        )
    # Without this metadata a loader takes alpha = rank: another policy, and no warning.
    metadata = _collate_lora_metadata({"transformer": transformer})
    with atomic_file(Path(folder) / LORA_FILE) as temporary:
        pipeline.save_lora_weights(
            temporary.parent,
            transformer_lora_layers=get_peft_model_state_dict(transformer, adapter_name=ADAPTER),
            weight_name=temporary.name,
            **metadata,
        )
    return Path(folder) / LORA_FILE


def load_lora(transformer: Any, folder: Path, pipeline: Any, scale: float = 1.0) -> None:
    """Loads LoRA weights for inference or further training, in place of any that are there.

    Args:
        folder: a folder by `save_lora` or by any diffusers or ComfyUI program, or its .safetensors file.
        pipeline: the transformer's pipeline class, which knows the formats.
        scale: multiplies what the layers add; 0 is the base model.

    Raises:
        FileNotFoundError, CorruptFileError: if the file is missing or damaged, or fits this model not at
            all or only in part.
    """
    load_loras(transformer, [(folder, scale)], pipeline)


def load_loras(transformer: Any, loras: Sequence[tuple[Path, float]], pipeline: Any) -> None:
    """Loads several LoRAs, each with its scale, in place of any that are there; what they add is summed.

    The first is the one that `lora_parameters` and `save_lora` know; the others are for inference.

    Raises:
        FileNotFoundError, CorruptFileError: as `load_lora`; then no LoRA is left on the model.
    """
    files = [lora_file(Path(folder)) for folder, _ in loras]
    contents = [lora_state(file, pipeline) for file in files]
    if has_lora(transformer):
        transformer.unload_lora()
    names = [ADAPTER if number == 0 else f"{ADAPTER}_{number}" for number in range(len(loras))]
    try:
        for name, file, (state, metadata) in zip(names, files, contents, strict=True):
            _load_adapter(transformer, file, state, metadata, name)
    except CorruptFileError:
        if has_lora(transformer):
            transformer.unload_lora()
        raise
    if names:
        transformer.set_adapters(names, weights=[scale for _, scale in loras])


def lora_state(file: Path, pipeline: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """The tensors of a LoRA file by diffusers' names ("transformer.blocks.0..."), and its metadata,
    as `pipeline`, a pipeline class, reads it.

    Raises:
        CorruptFileError: if it is damaged, or holds no LoRA of a transformer.
    """
    try:
        state, metadata = pipeline.lora_state_dict(
            str(file.parent), weight_name=file.name, use_safetensors=True, return_lora_metadata=True
        )
    except SafetensorError as error:
        raise CorruptFileError(f"{file} is truncated or damaged ({error}); get a fresh copy") from error
    if not any(key.startswith(PREFIX) for key in state):
        example = next(iter(state), "nothing")
        raise CorruptFileError(
            f"{file} holds no LoRA weights of a {pipeline.__name__}'s transformer (it holds {example!r}): a "
            "folder written by peft's save_pretrained is not in the format of diffusers"
        )
    return state, metadata


def _load_adapter(
    transformer: Any,
    file: Path,
    state: dict[str, torch.Tensor],
    metadata: dict[str, Any] | None,
    adapter: str,
) -> None:
    weights = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    try:
        with warnings.catch_warnings():
            # peft doubts that a second adapter is meant; here it is.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            transformer.load_lora_adapter(state, adapter_name=adapter, metadata=metadata)
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise CorruptFileError(f"{file} does not fit this model: {error}") from error
    _make_trainable(transformer, adapter)
    loaded = {
        name.replace(f".{adapter}.", "."): p for name, p in lora_parameters(transformer, adapter).items()
    }
    wrong = sorted(weights.keys() ^ loaded.keys())
    if wrong:
        raise CorruptFileError(
            f"{file} fits this model only in part: {len(wrong)} tensors have no counterpart, "
            f"among them {wrong[0]}"
        )
    for name, parameter in loaded.items():
        # Once more, because the loader rounds to the type of a half-precision base model.
        parameter.data.copy_(weights[name])


def lora_file(path: Path) -> Path:
    """The weight file that `load_lora` reads for a folder or file.

    Raises:
        FileNotFoundError: if there is none, or several without the usual name.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"there is no LoRA folder or file {path}")
    if (path / LORA_FILE).is_file():
        return path / LORA_FILE
    others = sorted(path.glob("*.safetensors"))
    if len(others) != 1:
        raise FileNotFoundError(
            f"{path} holds no {LORA_FILE} and {len(others)} other .safetensors files: name the file itself"
        )
    return others[0]


def _make_trainable(transformer: Any, adapter: str = ADAPTER) -> None:
    """LoRA layers of a half-precision model are half precision too; optimizers need float32."""
    for parameter in lora_parameters(transformer, adapter).values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
