"""A start for training an Any4D network from scratch. Loaded weights never pass here."""

import math

import torch
from torch import nn

from vggrpo.backbones.any4d.network import Any4DNetwork
from vggrpo.backbones.vit import Block

TOKEN_STD = 0.3
"""Of learned tokens and positions: as large as embedded patches, so that they count from the first step."""
LAST_LAYER_STD = 0.02
"""Of the dense head's last layer, and of the scene flow's where it is to be trained."""


@torch.no_grad()
def reset_parameters(
    network: Any4DNetwork,
    *,
    depth: float,
    flow_std: float = 0.0,
    generator: torch.Generator | None = None,
) -> None:
    """Draws all parameters anew, such that the untrained network already predicts a plausible scene.

    Linear layers of the transformers: Xavier normal, cut at two deviations (.02 at the official width).
    Convolutions and heads: uniform Kaiming. The last layers are set so that every camera is the identity,
    every ray looks ahead, every distance is about `depth`, nothing moves, and the metric scale is 1.

    The untrained rays fit no pinhole yet: until they do, train on the rays of the raw prediction, since
    fitted focal lengths have no meaning.

    Args:
        depth: the typical distance along a ray in the training scenes, in their units (their geometric mean
            is best).
        flow_std: deviation of the scene flow's last layer. With 0 nothing moves, but the layers behind it get
            random directions instead of gradients at first: train with `LAST_LAYER_STD`.

    Raises:
        ValueError: if `depth` is not positive.
    """
    if not depth > 0:
        raise ValueError(
            f"depth is {depth}, but the typical distance of the training scenes, above 0, is expected"
        )
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Block):
            for gain in (module.scale1, module.scale2):
                if gain is not None:
                    nn.init.ones_(gain)
    for transformer in (network.encoder, network.multi_view):
        for module in transformer.modules():
            if isinstance(module, nn.Linear):
                _truncated_normal(module.weight, (2 / sum(module.weight.shape)) ** 0.5, generator)
    for token in (network.encoder.class_token, network.encoder.position_table, network.scale_token):
        _truncated_normal(token, TOKEN_STD, generator)

    for layer in (network.pose_head.translation, network.pose_head.rotation, network.scale_head.out):
        nn.init.zeros_(layer.weight)
    _set_bias(network.pose_head.rotation, [0.0, 0.0, 0.0, 1.0])
    nn.init.zeros_(network.scene_flow_head.regressor.out.weight)
    if flow_std > 0:
        _truncated_normal(network.scene_flow_head.regressor.out.weight, flow_std, generator)
    _truncated_normal(network.dense_head.regressor.out.weight, LAST_LAYER_STD, generator)
    # Channels: ray x, y, z; log-depth; log-confidence; mask logit.
    _set_bias(network.dense_head.regressor.out, [0.0, 0.0, 1.0, math.log(depth), 0.0, 0.0])


def _set_bias(layer: nn.Linear | nn.Conv2d, values: list[float]) -> None:
    assert layer.bias is not None
    layer.bias.copy_(torch.tensor(values))


def _truncated_normal(tensor: torch.Tensor, std: float, generator: torch.Generator | None) -> None:
    nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std, generator=generator)
