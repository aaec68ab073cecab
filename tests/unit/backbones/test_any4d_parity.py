"""Our network against what upstream's computed: outputs, every activation, and the gradient at the images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from parity import assert_image_gradient, predicted_through
from vggrpo.backbones.any4d import Any4D, Any4DPrediction
from vggrpo.geometry import quat_xyzw_to_matrix, rotate

TOLERANCE = {"atol": 2e-5, "rtol": 0.0}
POINTS = ("E0", "E1", "E2", "E3", "F", *(f"M{j}" for j in range(8)))


def upstream_outputs(prediction: Any4DPrediction) -> dict[str, Tensor]:
    """The prediction as upstream words it: lengths metric, points in the network's world."""
    scale = prediction.scale
    per_pixel = scale[:, None, None, None, None]
    points_camera = prediction.ray_directions * prediction.depth_along_ray[..., None] * per_pixel
    translation = prediction.translation * scale[:, None, None]
    rotation = quat_xyzw_to_matrix(prediction.quat_xyzw)
    return {
        "ray_directions": prediction.ray_directions,
        "depth_along_ray": prediction.depth_along_ray[..., None] * per_pixel,
        "pts3d_cam": points_camera,
        "pts3d": rotate(rotation, points_camera) + translation[:, :, None, None],
        "cam_quats": prediction.quat_xyzw,
        "cam_trans": translation,
        "conf": prediction.confidence,
        "non_ambiguous_mask_logits": prediction.mask_logits,
        "scene_flow": prediction.scene_flow * per_pixel,
        "metric_scaling_factor": scale[:, None],
    }


def assert_matches(outputs: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in outputs.items():
        torch.testing.assert_close(value, expected[name], **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


def test_outputs_match_upstream(upstream, any4d: Any4D):
    outputs = upstream_outputs(any4d.network.predict(upstream.frames))
    assert outputs.keys() == upstream.outputs.keys() - {"non_ambiguous_mask"}
    assert_matches(outputs, upstream.outputs)
    torch.testing.assert_close(
        outputs["non_ambiguous_mask_logits"] > 0, upstream.outputs["non_ambiguous_mask"]
    )


@pytest.mark.parametrize("point", POINTS)
def test_outputs_match_when_entered_with_upstreams_tokens(upstream, any4d: Any4D, point: str):
    prediction = any4d.predict_from(point, *upstream.tokens(point), upstream.grid, upstream.lost(point))
    assert_matches(upstream_outputs(prediction), upstream.outputs)


@pytest.mark.parametrize("point", POINTS)
def test_tokens_match_upstream(upstream, any4d: Any4D, point: str):
    patches, special = any4d.tokens_at(upstream.frames, [point])[point]
    expected_patches, expected_special = upstream.tokens(point)
    torch.testing.assert_close(patches, expected_patches, **TOLERANCE)
    torch.testing.assert_close(special, expected_special, **TOLERANCE)


@pytest.mark.parametrize("point", POINTS)
def test_lost_head_inputs_match_upstream(upstream, any4d: Any4D, point: str):
    expected = upstream.lost(point)
    inputs = {head_input.name: head_input.width for head_input in any4d.stitch_point(point).lost}
    assert inputs == {head_input: tokens.shape[-1] for head_input, tokens in expected.items()}
    for head_input, (patches, special) in any4d.tokens_at(upstream.frames, inputs).items():
        torch.testing.assert_close(patches, expected[head_input], **TOLERANCE)
        assert special.shape[2] == 0


def test_image_gradient_matches_upstream(upstream, any4d: Any4D):
    frames = upstream.frames.clone().requires_grad_()
    assert_image_gradient(upstream_outputs(any4d.network.predict(frames)), frames, upstream.grads)


@pytest.mark.parametrize("point", POINTS)
def test_image_gradient_matches_through_every_stitch_point(upstream, any4d: Any4D, point: str):
    frames = upstream.frames.clone().requires_grad_()
    prediction = predicted_through(any4d, point, frames, upstream.grid)
    assert_image_gradient(upstream_outputs(prediction), frames, upstream.grads)


def recorded_activations(model: Any4D, frames: Tensor) -> dict[str, Tensor]:
    """Our activations under upstream's tap names, in upstream's layouts."""
    network, (batch, views) = model.network, frames.shape[:2]
    taps: dict[str, Tensor] = {}
    handles = []

    def record(module: nn.Module, name: str, layout: Callable[[Any], Tensor]) -> None:
        handles.append(module.register_forward_hook(lambda _m, _i, out: taps.__setitem__(name, layout(out))))

    def record_input(module: nn.Module, store: Callable[[Any], None]) -> None:
        handles.append(module.register_forward_pre_hook(lambda _m, inputs: store(inputs)))

    def per_view(x: Tensor) -> Tensor:
        return x.unflatten(0, (batch, views))

    for i, block in enumerate(network.encoder.blocks):
        record(block, f"encoder.block.{i}", per_view)
    record(network.fusion_norm, "fused.features", lambda x: x.unflatten(2, (4, 5)))
    record_input(network.multi_view.blocks[0], lambda i: taps.__setitem__("multi_view.tokens", i[0]))
    for i, block in enumerate(network.multi_view.blocks):
        record(block, f"multi_view.block.{i}", (lambda x: x) if i % 2 == 0 else per_view)
    record_input(
        network.dense_head,
        lambda i: taps.update({f"dpt.input.{k}": per_view(x) for k, x in enumerate(i[0])}),
    )
    record(network.dense_head.decoder, "dpt.features", per_view)
    record(network.dense_head, "dpt.raw", per_view)
    record(network.scene_flow_head, "scene_flow.raw", per_view)
    record(network.pose_head, "pose.raw", lambda out: per_view(torch.cat(out, dim=-1)))
    record_input(network.scale_head, lambda i: taps.__setitem__("scale.input", i[0][..., None]))
    record(network.scale_head, "scale.raw", lambda x: x[:, None, None])
    network.predict(frames)
    for handle in handles:
        handle.remove()
    return taps


def test_every_activation_matches_upstream(upstream, any4d: Any4D):
    taps = recorded_activations(any4d, upstream.frames)
    assert taps.keys() == upstream.taps.keys() - {"encoder.tokens", "encoder.features"}
    assert_matches(taps, upstream.taps)
