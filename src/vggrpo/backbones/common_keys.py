"""Parameter names that several upstream projects took over from DINOv2 and DPT, as data.

In every table our names stand on the left and upstream's on the right.
"""

from collections.abc import Mapping

ENCODER = {
    "class_token": "cls_token",
    "position_table": "pos_embed",
    "patch_embed": "patch_embed.proj",
    "norm": "norm",
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
FUSION = {
    "merge.conv1": "resConfUnit1.conv1",
    "merge.conv2": "resConfUnit1.conv2",
    "refine.conv1": "resConfUnit2.conv1",
    "refine.conv2": "resConfUnit2.conv2",
    "out": "out_conv",
}


def prefixed(own: str, upstream: str, table: Mapping[str, str]) -> dict[str, str]:
    """The table's names below the modules `own` and `upstream`."""
    return {f"{own}.{key}": f"{upstream}.{value}" for key, value in table.items()}


def block_names(own: str, upstream: str, count: int, table: Mapping[str, str]) -> dict[str, str]:
    """The table's names below the first `count` blocks of the lists `own` and `upstream`."""
    names: dict[str, str] = {}
    for i in range(count):
        names |= prefixed(f"{own}.{i}", f"{upstream}.{i}", table)
    return names


def encoder_names(upstream: str, depth: int) -> dict[str, str]:
    """The names of our `encoder`, which upstream calls `upstream`."""
    blocks = block_names("encoder.blocks", f"{upstream}.blocks", depth, BLOCK | LAYER_SCALE)
    return prefixed("encoder", upstream, ENCODER) | blocks
