"""Upstream's parameter names (Any4D on UniCeption 0.1.7) as data.

In every table our names stand on the left and upstream's on the right.
"""

from vggrpo.backbones.any4d.config import Any4DConfig
from vggrpo.backbones.checkpoint import KeyMap
from vggrpo.backbones.common_keys import BLOCK, FUSION, block_names, encoder_names, prefixed

TOP = {"fusion_norm": "fusion_norm_layer", "scale_token": "scale_token"}
MULTI_VIEW = {
    "multi_view.project": "info_sharing.proj_embed",
    "multi_view.reference_code": "info_sharing.view_pos_table",
    "multi_view.norm": "info_sharing.norm",
}
REASSEMBLE = {"project": "0.0", "resize": "0.1", "adapt": "1"}
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

UNUSED = (
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


SIGNATURE = "info_sharing."
"""Prefix by which a checkpoint of this project is told from others."""


def key_map(config: Any4DConfig) -> KeyMap:
    """The names of a network of these dimensions."""
    return KeyMap(_module_names(config), UNUSED, ALIASES)


def _module_names(config: Any4DConfig) -> dict[str, str]:
    names = TOP | MULTI_VIEW | POSE_HEAD | SCALE_HEAD
    names |= encoder_names("encoder.model", config.encoder_depth)
    names |= block_names(
        "multi_view.blocks", "info_sharing.self_attention_blocks", config.multi_view_depth, BLOCK
    )
    for head, prefix in DENSE_HEADS.items():
        features = f"{prefix}_feature_head"
        names |= block_names(f"{head}.decoder.reassemble", f"{features}.input_process", 4, REASSEMBLE)
        for i in range(4):
            names |= prefixed(f"{head}.decoder.fusions.{i}", f"{features}.scratch.refinenet{i + 1}", FUSION)
        names |= prefixed(f"{head}.regressor", f"{prefix}_regressor_head", REGRESSOR)
    for i in range(config.pose_units):
        for c in (1, 2, 3):
            names[f"pose_head.units.{i}.conv{c}"] = f"pose_head.res_conv.{i}.res_conv{c}"
    for i in range(config.scale_layers):
        names[f"scale_head.layers.{i}"] = f"scale_head.mlp.{i}.0"
    return names
