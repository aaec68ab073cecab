"""The network's dimensions: JSON round trip, refusals, and any grid and patch size."""

import dataclasses
import json

import pytest
import torch

from vggrpo.backbones.vggt import VGGTConfig, VGGTNetwork

SMALL = VGGTConfig(
    patch_size=6,
    encoder_dim=16,
    encoder_depth=1,
    encoder_heads=2,
    position_grid=4,
    num_registers=2,
    aggregator_depth=4,
    aggregator_heads=2,
    camera_depth=1,
    camera_heads=4,
    dpt_layers=(0, 1, 2, 3),
    dpt_features=8,
    dpt_layer_dims=(4, 8, 12, 16),
)


@pytest.mark.parametrize("config", [SMALL, VGGTConfig.official()])
def test_json_round_trip(config):
    assert VGGTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_stitch_points_are_the_encoders_blocks_and_the_first_pairs():
    official = VGGTConfig.official().stitch_points
    assert official == (*(f"E{k}" for k in range(25)), "A0", "A1", "A2", "A3", "A4")
    assert SMALL.stitch_points == ("E0", "E1", "A0")
    assert SMALL.deep_stitch_points == ("A1", "A2", "A3")


def test_an_unknown_key_is_named_with_its_nearest_neighbour():
    with pytest.raises(ValueError, match=r"'dpt_layer' is not a setting of a VGGT network; did you mean"):
        VGGTConfig.from_dict(SMALL.to_dict() | {"dpt_layer": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_heads": 3}, "encoder_dim is 16, but must be a multiple of encoder_heads, 3"),
        ({"aggregator_heads": 3}, "encoder_dim is 16, but must be a multiple of aggregator_heads, 3"),
        ({"aggregator_heads": 8}, "a head needs a multiple of 4 channels"),
        ({"camera_heads": 5}, "camera_heads is 5, but must divide twice encoder_dim, 32"),
        ({"dpt_layers": (0, 1, 2, 2)}, "four increasing numbers of pairs"),
        ({"dpt_layers": (0, 1, 2, 4)}, "the last of them aggregator_depth - 1, 3"),
        ({"dpt_layers": (-1, 1, 2, 3)}, "dpt_layers is .* at least 0"),
        ({"dpt_layer_dims": (4, 8, 12)}, "four multiples of 4"),
        ({"dpt_layer_dims": (4, 8, 12, 6)}, "four multiples of 4"),
        ({"dpt_features": 12}, "dpt_features is 12, but must be a multiple of 8"),
        ({"patch_size": 0}, "patch_size is 0, but whole numbers of at least 1"),
    ],
)
def test_impossible_dimensions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize(
    ("height", "width"), [(24, 30), (6, 6), (18, 42)], ids=["even by odd", "one patch", "odd grid"]
)
def test_every_grid_gives_maps_of_the_image_size(height, width):
    prediction = VGGTNetwork(SMALL).predict(torch.rand(1, 2, height, width, 3))
    assert prediction.log_depth.shape == (1, 2, height, width)
    assert prediction.point_vectors.shape == (1, 2, height, width, 3)
    assert prediction.pose_encodings.shape == (4, 1, 2, 9)
    assert all(value.isfinite().all() for value in vars(prediction).values())


def test_views_behind_the_first_are_interchangeable():
    torch.manual_seed(0)
    network = VGGTNetwork(SMALL)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    frames = torch.rand(1, 3, 12, 18, 3)
    one, other = network.predict(frames), network.predict(frames[:, [0, 2, 1]])
    torch.testing.assert_close(other.log_depth[:, [0, 2, 1]], one.log_depth, rtol=1e-4, atol=1e-4)
    first = network.predict(frames[:, [1, 0, 2]]).log_depth[:, [1, 0, 2]]
    assert (first - one.log_depth).abs().max() > 1e-2


def test_autocast_changes_little_and_heads_stay_float32():
    torch.manual_seed(0)
    network, frames = VGGTNetwork(SMALL), torch.rand(1, 3, 24, 30, 3)
    dtypes = {}
    for name, module in network.named_modules():
        module.register_forward_hook(
            lambda _m, _i, out, n=name: dtypes.update({n: getattr(out, "dtype", None)})
        )
    exact = network.predict(frames)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network.predict(frames)
    assert dtypes["encoder.blocks.0.attention.qkv"] == torch.bfloat16
    assert dtypes["aggregator.global_blocks.3.mlp.fc1"] == torch.bfloat16
    assert {dtype for name, dtype in dtypes.items() if "head" in name and dtype} == {torch.float32}
    for name, value in vars(rounded).items():
        torch.testing.assert_close(value, vars(exact)[name], rtol=0.05, atol=0.05)
