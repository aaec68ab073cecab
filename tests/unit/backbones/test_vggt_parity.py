"""Our network against what upstream's computed: outputs, every activation, and the gradient at the images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parity import assert_image_gradient, predicted_through
from vggrpo.backbones.vggt import VGGT, VGGTPrediction, scene_from_prediction
from vggrpo.geometry import invert_se3

TOLERANCE = {"atol": 2e-5, "rtol": 0.0}
POINTS = ("E0", "E1", "E2", "E3", *(f"A{j}" for j in range(8)))


def upstream_outputs(prediction: VGGTPrediction) -> dict[str, Tensor]:
    """The prediction as upstream words it: world-to-camera, fields of view not negative."""
    encodings = prediction.pose_encodings
    poses = torch.cat([encodings[..., :7], F.relu(encodings[..., 7:])], dim=-1)
    scene = scene_from_prediction(prediction, anchor_first_view=False)
    return {
        "depth": prediction.depth_z[..., None],
        "depth_conf": prediction.depth_confidence,
        "world_points": prediction.world_points,
        "world_points_conf": prediction.point_confidence,
        "pose_enc": poses[-1],
        **{f"pose_enc_list.{i}": pose for i, pose in enumerate(poses)},
        "extrinsic": invert_se3(scene.camera_to_world)[..., :3, :],
        "intrinsic": scene.intrinsics,
    }


def assert_matches(outputs: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in outputs.items():
        torch.testing.assert_close(value, expected[name], **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


def assert_outputs_match(prediction: VGGTPrediction, expected: dict[str, Tensor]) -> None:
    outputs = upstream_outputs(prediction)
    assert outputs.keys() == expected.keys()
    # Focal lengths are in pixels, up to 274, where float32 numbers lie 3e-5 apart: 2e-5 of the largest.
    pixels = expected["intrinsic"].abs().max()
    intrinsic = {"intrinsic": outputs.pop("intrinsic") / pixels}
    assert_matches(intrinsic, {"intrinsic": expected["intrinsic"] / pixels})
    assert_matches(outputs, expected)


def test_outputs_match_upstream(vggt_upstream, vggt: VGGT):
    assert_outputs_match(vggt.network.predict(vggt_upstream.frames), vggt_upstream.outputs)


@pytest.mark.parametrize("point", POINTS)
def test_outputs_match_when_entered_with_upstreams_tokens(vggt_upstream, vggt: VGGT, point: str):
    prediction = vggt.predict_from(
        point, *vggt_upstream.tokens(point), vggt_upstream.grid, vggt_upstream.lost(point)
    )
    assert_outputs_match(prediction, vggt_upstream.outputs)


@pytest.mark.parametrize("point", POINTS)
def test_tokens_match_upstream(vggt_upstream, vggt: VGGT, point: str):
    patches, special = vggt.tokens_at(vggt_upstream.frames, [point])[point]
    expected_patches, expected_special = vggt_upstream.tokens(point)
    torch.testing.assert_close(patches, expected_patches, **TOLERANCE)
    torch.testing.assert_close(special, expected_special, **TOLERANCE)


@pytest.mark.parametrize("point", POINTS)
def test_lost_head_inputs_match_upstream(vggt_upstream, vggt: VGGT, point: str):
    expected = vggt_upstream.lost(point)
    inputs = {head_input.name: head_input.width for head_input in vggt.stitch_point(point).lost}
    assert inputs == {head_input: tokens.shape[-1] for head_input, tokens in expected.items()}
    for head_input, (patches, special) in vggt.tokens_at(vggt_upstream.frames, inputs).items():
        torch.testing.assert_close(patches, expected[head_input], **TOLERANCE)
        assert special.shape[2] == 0


def weighted_outputs(prediction: VGGTPrediction) -> dict[str, Tensor]:
    """Those that upstream has a gradient of."""
    outputs = upstream_outputs(prediction)
    return {name: value for name, value in outputs.items() if name not in ("extrinsic", "intrinsic")}


def test_image_gradient_matches_upstream(vggt_upstream, vggt: VGGT):
    frames = vggt_upstream.frames.clone().requires_grad_()
    assert_image_gradient(weighted_outputs(vggt.network.predict(frames)), frames, vggt_upstream.grads)


@pytest.mark.parametrize("point", POINTS)
def test_image_gradient_matches_through_every_stitch_point(vggt_upstream, vggt: VGGT, point: str):
    frames = vggt_upstream.frames.clone().requires_grad_()
    prediction = predicted_through(vggt, point, frames, vggt_upstream.grid)
    assert_image_gradient(weighted_outputs(prediction), frames, vggt_upstream.grads)


def recorded_activations(model: VGGT, frames: Tensor) -> dict[str, Tensor]:
    """Our activations under upstream's tap names, in upstream's layouts."""
    network, views = model.network, frames.shape[:2]
    taps: dict[str, Tensor] = {}
    handles = []

    def record(module: nn.Module, name: str, layout: Callable[[Any], Tensor]) -> None:
        handles.append(module.register_forward_hook(lambda _m, _i, out: taps.__setitem__(name, layout(out))))

    def record_input(module: nn.Module, name: str, layout: Callable[[Any], Tensor]) -> None:
        handles.append(module.register_forward_pre_hook(lambda _m, i: taps.__setitem__(name, layout(i[0]))))

    def per_view(x: Tensor) -> Tensor:
        return x.unflatten(0, views)

    record_input(network.encoder.blocks[0], "encoder.tokens", per_view)
    for i, block in enumerate(network.encoder.blocks):
        record(block, f"encoder.block.{i}", per_view)
    record(network.encoder.norm, "encoder.features", per_view)
    record_input(network.aggregator.frame_blocks[0], "aggregator.tokens", per_view)
    for i, block in enumerate(network.aggregator.frame_blocks):
        record(block, f"aggregator.frame.{i}", per_view)
    for i, block in enumerate(network.aggregator.global_blocks):
        record(block, f"aggregator.global.{i}", lambda x: x.unflatten(1, (views[1], -1)))
    record_input(network.camera_head, "camera.tokens", lambda x: x)
    record(network.depth_head.regressor.conv1, "depth.features", per_view)
    for head, name in ((network.depth_head, "depth.raw"), (network.point_head, "points.raw")):
        record(head, name, lambda x: x.permute(0, 1, 4, 2, 3))
    network.predict(frames)
    for handle in handles:
        handle.remove()
    return taps


def test_every_activation_matches_upstream(vggt_upstream, vggt: VGGT):
    taps = recorded_activations(vggt, vggt_upstream.frames)
    assert taps.keys() == vggt_upstream.taps.keys()
    assert_matches(taps, vggt_upstream.taps)
