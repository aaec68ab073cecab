"""Comparison of a geometry network's gradients with upstream's."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vggrpo.backbones.network_backbone import NetworkBackbone


def predicted_through(model: NetworkBackbone, point: str, frames: Tensor, grid: tuple[int, int]) -> Any:
    """The prediction from the tokens at a stitch point, and from what the heads lose there, so that its
    gradient runs from the heads back to the point, and from there to the frames.
    """
    lost = [head_input.name for head_input in model.stitch_point(point).lost]
    tokens = model.tokens_at(frames, [point, *lost])
    return model.predict_from(point, *tokens[point], grid, {name: tokens[name][0] for name in lost})


def assert_image_gradient(
    outputs: Mapping[str, Tensor], frames: Tensor, upstream: Mapping[str, Tensor]
) -> None:
    """At the frames, all of `outputs` weighted by `upstream`'s "cotangent.<name>" have its gradient "images",
    to 2e-5 of the largest value there.
    """
    assert {f"cotangent.{name}" for name in outputs} == upstream.keys() - {"images"}
    cotangents = [upstream[f"cotangent.{name}"] for name in outputs]
    (gradient,) = torch.autograd.grad(list(outputs.values()), frames, cotangents)
    expected = upstream["images"].permute(0, 1, 3, 4, 2)
    scale = expected.abs().max()
    torch.testing.assert_close(gradient / scale, expected / scale, atol=2e-5, rtol=0.0)
