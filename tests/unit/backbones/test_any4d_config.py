"""The network's dimensions: JSON round trip, refusals, and the published model's size."""

import dataclasses
import json

import pytest
import torch

from vggrpo.backbones.any4d import Any4DConfig, Any4DNetwork

SMALL = Any4DConfig(
    patch_size=8,
    encoder_dim=32,
    encoder_depth=2,
    encoder_heads=2,
    multi_view_dim=16,
    multi_view_depth=4,
    multi_view_heads=2,
    multi_view_hooks=(1, 2),
    dpt_features=8,
    dpt_layer_dims=(4, 8, 12, 16),
)


@pytest.mark.parametrize("config", [SMALL, Any4DConfig.official()])
def test_json_round_trip(config):
    assert Any4DConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_official_network_has_the_published_number_of_live_parameters():
    with torch.device("meta"):
        network = Any4DNetwork(Any4DConfig.official())
    millions = {
        name: sum(p.numel() for p in module.parameters()) / 1e6 for name, module in network.named_children()
    }
    expected = {
        "encoder": 304.37,
        "fusion_norm": 0.002,
        "multi_view": 170.90,
        "dense_head": 18.58 + 0.44,
        "scene_flow_head": 18.58 + 0.44,
        "pose_head": 5.53,
        "scale_head": 0.23,
    }
    assert millions == pytest.approx(expected, abs=0.011)
    assert sum(p.numel() for p in network.parameters()) == 519_071_553


def test_an_unknown_key_is_named_with_its_nearest_neighbour():
    values = SMALL.to_dict() | {"encoder_dims": 64}
    with pytest.raises(ValueError, match=r"'encoder_dims' is not a setting .* did you mean 'encoder_dim'"):
        Any4DConfig.from_dict(values)


def test_missing_keys_are_named():
    values = SMALL.to_dict()
    del values["patch_size"], values["multi_view_hooks"]
    with pytest.raises(ValueError, match="lack patch_size, multi_view_hooks"):
        Any4DConfig.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_heads": 3}, "encoder_dim is 32, but must be a multiple of encoder_heads, 3"),
        ({"multi_view_heads": 5}, "multi_view_dim is 16, but must be a multiple of multi_view_heads, 5"),
        (
            {"multi_view_hooks": (2, 1)},
            r"multi_view_hooks is \(2, 1\), but two increasing block numbers below",
        ),
        ({"multi_view_hooks": (1, 4)}, "two increasing block numbers below multi_view_depth, 4"),
        ({"dpt_layer_dims": (4, 8, 12)}, "four widths"),
        ({"dpt_features": 7}, "dpt_features 7, but both must be even"),
        ({"patch_size": 0}, "patch_size is 0, but whole numbers of at least 1"),
        ({"patch_size": 8.0}, "patch_size is 8.0"),
    ],
)
def test_impossible_dimensions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize(
    ("height", "width"),
    [(48, 64), (64, 48), (8, 8), (40, 56)],
    ids=["micro", "upright", "one patch", "odd grid"],
)
def test_every_grid_gives_maps_of_the_image_size(height, width):
    network = Any4DNetwork(SMALL)
    prediction = network.predict(torch.rand(1, 2, height, width, 3))
    assert prediction.ray_vectors.shape == (1, 2, height, width, 3)
    assert prediction.scene_flow.shape == (1, 2, height, width, 3)
    assert prediction.log_depth.shape == (1, 2, height, width)
    assert prediction.translation.shape == (1, 2, 3)
    assert prediction.quat_vectors.shape == (1, 2, 4)
    assert prediction.log_scale.shape == (1,)
    assert all(value.isfinite().all() for value in vars(prediction).values())
