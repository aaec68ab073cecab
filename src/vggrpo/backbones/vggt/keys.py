"""Upstream's parameter names (VGGT, revision 9e4fa66) as data.

In every table our names stand on the left and upstream's on the right.
"""

from vggrpo.backbones.checkpoint import KeyMap
from vggrpo.backbones.common_keys import BLOCK, FUSION, LAYER_SCALE, block_names, encoder_names, prefixed
from vggrpo.backbones.vggt.config import VGGTConfig

ENCODER = {"encoder.register_tokens": "aggregator.patch_embed.register_tokens"}
AGGREGATOR = {
    "aggregator.camera_token": "aggregator.camera_token",
    "aggregator.register_tokens": "aggregator.register_token",
}
QK_NORM = {"attention.query_norm": "attn.q_norm", "attention.key_norm": "attn.k_norm"}
CAMERA_HEAD = {
    "camera_head.token_norm": "camera_head.token_norm",
    "camera_head.empty_pose": "camera_head.empty_pose_tokens",
    "camera_head.embed_pose": "camera_head.embed_pose",
    "camera_head.modulation": "camera_head.poseLN_modulation.1",
    "camera_head.trunk_norm": "camera_head.trunk_norm",
    "camera_head.correction.fc1": "camera_head.pose_branch.fc1",
    "camera_head.correction.fc2": "camera_head.pose_branch.fc2",
}
DENSE_HEADS = ("depth_head", "point_head")
REGRESSOR = {"conv1": "output_conv1", "conv2": "output_conv2.0", "out": "output_conv2.2"}

UNUSED = ("track_head.", "aggregator.patch_embed.mask_token")
"""The point tracker, and the token that stands for hidden patches in DINOv2's training."""

SIGNATURE = "aggregator."
"""Prefix by which a checkpoint of this project is told from others."""


def key_map(config: VGGTConfig) -> KeyMap:
    """The names of a network of these dimensions."""
    names = encoder_names("aggregator.patch_embed", config.encoder_depth)
    names |= ENCODER | AGGREGATOR | CAMERA_HEAD
    for kind in ("frame_blocks", "global_blocks"):
        name = f"aggregator.{kind}"
        names |= block_names(name, name, config.aggregator_depth, BLOCK | LAYER_SCALE | QK_NORM)
    names |= block_names("camera_head.trunk", "camera_head.trunk", config.camera_depth, BLOCK | LAYER_SCALE)
    for head in DENSE_HEADS:
        names |= {f"{head}.norm": f"{head}.norm"} | prefixed(
            f"{head}.regressor", f"{head}.scratch", REGRESSOR
        )
        for i in range(4):
            names[f"{head}.decoder.reassemble.{i}.project"] = f"{head}.projects.{i}"
            names[f"{head}.decoder.reassemble.{i}.resize"] = f"{head}.resize_layers.{i}"
            names[f"{head}.decoder.reassemble.{i}.adapt"] = f"{head}.scratch.layer{i + 1}_rn"
            names |= prefixed(f"{head}.decoder.fusions.{i}", f"{head}.scratch.refinenet{i + 1}", FUSION)
    return KeyMap(names, UNUSED)
