"""Upstream's parameter names (Any4D on UniCeption 0.1.7) as data, and the translation of its checkpoints.

In every table our names stand on the left and upstream's on the right.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vggrpo.backbones.any4d.config import Any4DConfig

ENCODER = {
    "encoder.class_token": "encoder.model.cls_token",
    "encoder.position_table": "encoder.model.pos_embed",
    "encoder.patch_embed": "encoder.model.patch_embed.proj",
    "encoder.norm": "encoder.model.norm",
    "fusion_norm": "fusion_norm_layer",
    "scale_token": "scale_token",
}
BLOCK = {
    "norm1": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.proj": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
LAYER_SCALE = {"scale1": "ls1.gamma", "scale2": "ls2.gamma"}
MULTI_VIEW = {
    "multi_view.project": "info_sharing.proj_embed",
    "multi_view.reference_code": "info_sharing.view_pos_table",
    "multi_view.norm": "info_sharing.norm",
}
REASSEMBLE = {"project": "0.0", "resize": "0.1", "adapt": "1"}
FUSION = {
    "merge.conv1": "resConfUnit1.conv1",
    "merge.conv2": "resConfUnit1.conv2",
    "refine.conv1": "resConfUnit2.conv1",
    "refine.conv2": "resConfUnit2.conv2",
    "out": "out_conv",
}
REGRESSOR = {"conv1": "conv1", "conv2": "conv2.0", "out": "conv2.2"}
DENSE_HEADS = {"dense_head": "dpt", "scene_flow_head": "scene_flow_dpt"}
POSE_HEAD = {
    "pose_head.project": "pose_head.proj",
    "pose_head.fc1": "pose_head.more_mlps.0",
    "pose_head.fc2": "pose_head.more_mlps.2",
    "pose_head.translation": "pose_head.fc_t",
    "pose_head.rotation": "pose_head.fc_rot",
}
SCALE_HEAD = {"scale_head.project": "scale_head.proj", "scale_head.out": "scale_head.output_proj"}

UNUSED_PREFIXES = (
    "ray_dirs_encoder.",
    "depth_encoder.",
    "scene_flow_encoder.",
    "depth_scale_encoder.",
    "cam_rot_encoder.",
    "cam_trans_encoder.",
    "cam_trans_scale_encoder.",
)
"""Encoders of inputs other than images: they contribute exact zeros when only images are given."""

ALIASES = (
    ("scene_flow_dense_head.0.", "scene_flow_dpt_feature_head."),
    ("scene_flow_dense_head.1.", "scene_flow_dpt_regressor_head."),
    ("dense_head.0.", "dpt_feature_head."),
    ("dense_head.1.", "dpt_regressor_head."),
    *((f".scratch.layer{i + 1}_rn.", f".input_process.{i}.1.") for i in range(4)),
    *((f".scratch.layer_rn.{i}.", f".input_process.{i}.1.") for i in range(4)),
)
"""Second names under which upstream saves the same tensors, and the names they stand for."""


def module_names(config: Any4DConfig) -> dict[str, str]:
    """Our module and parameter names to upstream's, for a network of these dimensions."""
    names = {**ENCODER, **MULTI_VIEW, **POSE_HEAD, **SCALE_HEAD}
    for i in range(config.encoder_depth):
        for own, upstream in (BLOCK | LAYER_SCALE).items():
            names[f"encoder.blocks.{i}.{own}"] = f"encoder.model.blocks.{i}.{upstream}"
    for i in range(config.multi_view_depth):
        for own, upstream in BLOCK.items():
            names[f"multi_view.blocks.{i}.{own}"] = f"info_sharing.self_attention_blocks.{i}.{upstream}"
    for head, prefix in DENSE_HEADS.items():
        for i in range(4):
            for own, upstream in REASSEMBLE.items():
                names[f"{head}.decoder.reassemble.{i}.{own}"] = (
                    f"{prefix}_feature_head.input_process.{i}.{upstream}"
                )
            for own, upstream in FUSION.items():
                names[f"{head}.decoder.fusions.{i}.{own}"] = (
                    f"{prefix}_feature_head.scratch.refinenet{i + 1}.{upstream}"
                )
        for own, upstream in REGRESSOR.items():
            names[f"{head}.regressor.{own}"] = f"{prefix}_regressor_head.{upstream}"
    for i in range(config.pose_units):
        for c in (1, 2, 3):
            names[f"pose_head.units.{i}.conv{c}"] = f"pose_head.res_conv.{i}.res_conv{c}"
    for i in range(config.scale_layers):
        names[f"scale_head.layers.{i}"] = f"scale_head.mlp.{i}.0"
    return names


def _upstream_key(own_key: str, names: Mapping[str, str]) -> str:
    if own_key in names:
        return names[own_key]
    module, _, parameter = own_key.rpartition(".")
    return f"{names[module]}.{parameter}"


def _canonical(key: str) -> str:
    for alias, name in ALIASES:
        key = name + key[len(alias) :] if key.startswith(alias) else key
        if alias.startswith("."):
            key = key.replace(alias, name)
    return key


def from_upstream(
    upstream: Mapping[str, Tensor], own: Mapping[str, Tensor], config: Any4DConfig
) -> dict[str, Tensor]:
    """Upstream's state dict in our names. `own` is our network's state dict, for its keys and shapes.

    Raises:
        ValueError: if a tensor is missing, has another shape, is known neither as used nor as unused, or if
            two names of one tensor hold different values.
    """
    tensors: dict[str, Tensor] = {}
    for key, value in upstream.items():
        name = _canonical(key)
        if name.startswith(UNUSED_PREFIXES):
            continue
        if name in tensors and not torch.equal(tensors[name], value):
            raise ValueError(f"it holds two different tensors for {name!r}, one of them as {key!r}")
        tensors[name] = value
    names = module_names(config)
    wanted = {key: _upstream_key(key, names) for key in own}
    problems = list(_problems(tensors, own, wanted))
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ValueError(shown)
    return {key: tensors[name].reshape(own[key].shape) for key, name in wanted.items()}


def _problems(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], wanted: Mapping[str, str]
) -> Iterator[str]:
    for key, name in wanted.items():
        if name not in tensors:
            yield f"{name} is missing"
        elif (
            tensors[name].numel() != own[key].numel()
            or tensors[name].squeeze().shape != own[key].squeeze().shape
        ):
            yield f"{name} is {list(tensors[name].shape)} where {list(own[key].shape)} is expected"
    for name in tensors.keys() - set(wanted.values()):
        yield f"{name} is unknown"
