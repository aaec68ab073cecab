"""Starting from scratch, gradients, and lower precision."""

import math

import pytest
import torch

from vggrpo.backbones.any4d import Any4D, Any4DConfig

CONFIG = Any4DConfig(
    patch_size=8,
    encoder_dim=32,
    encoder_depth=2,
    encoder_heads=2,
    multi_view_dim=32,
    multi_view_depth=4,
    multi_view_heads=2,
    multi_view_hooks=(1, 2),
    dpt_features=16,
    dpt_layer_dims=(8, 8, 16, 16),
)


def fresh(seed: int = 0, depth: float = 3.5) -> Any4D:
    model = Any4D(CONFIG)
    model.reset_parameters(depth=depth, generator=torch.Generator().manual_seed(seed))
    return model


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.rand(2, 3, 48, 64, 3, generator=torch.Generator().manual_seed(5))


def test_an_untrained_network_predicts_a_plausible_scene(frames):
    scene = fresh()(frames)
    assert torch.equal(scene.camera_to_world, torch.eye(4).expand(2, 3, 4, 4))
    assert (scene.depth_z > 2.5).all()
    assert (scene.depth_z < 4.5).all()
    assert scene.scene_flow_from_ref is not None
    assert (scene.scene_flow_from_ref == 0).all()
    prediction = fresh().network.predict(frames)
    assert (prediction.ray_directions[..., 2] > 0.9).all()
    assert torch.equal(prediction.scale, torch.ones(2))


def test_the_same_generator_gives_the_same_weights_whatever_was_there():
    first, second, other = fresh(0), fresh(0), fresh(1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.network.scale_token, other.network.scale_token)


def test_no_parameter_keeps_its_old_value():
    model = Any4D(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(77.0)
    model.reset_parameters(depth=2.0)
    for name, parameter in model.named_parameters():
        assert not (parameter == 77.0).any(), name


@pytest.mark.parametrize("depth", [0.0, -1.0, math.nan])
def test_a_depth_that_is_none_is_refused(depth):
    with pytest.raises(ValueError, match=r"depth is .* above 0, is expected"):
        fresh(depth=depth)


def test_a_few_steps_fit_one_clip(frames):
    frames = frames[:, :, :24, :32]
    model = fresh()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    target = 2 + frames.mean(-1)
    shift = torch.tensor([[0.0, 0, 0], [0.3, 0, 0], [0.6, 0, 0]])
    losses = []
    for _ in range(30):
        prediction = model.network.predict(frames)
        loss = (prediction.log_depth - target.log()).square().mean()
        loss = loss + (prediction.translation - shift).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_every_parameter_receives_a_gradient(frames):
    model = Any4D(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    prediction = model.network.predict(frames)
    sum((value * torch.rand_like(value)).sum() for value in vars(prediction).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("float32_heads", [True, False])
def test_autocast_changes_little_and_outputs_stay_float32(frames, float32_heads):
    model = fresh()
    model.network.float32_heads = float32_heads
    exact = model.network.predict(frames)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.network.predict(frames)
    for name, value in vars(rounded).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, vars(exact)[name], rtol=0.02, atol=0.02)


def test_heads_are_exactly_float32_under_autocast(frames):
    model = fresh()
    dtypes = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _m, _i, out, n=name: dtypes.update({n: getattr(out, "dtype", None)})
        )
    with torch.autocast("cpu", torch.bfloat16):
        model.network.predict(frames)
    assert dtypes["network.encoder.blocks.0.attention.qkv"] == torch.bfloat16
    assert dtypes["network.multi_view.blocks.0.mlp.fc1"] == torch.bfloat16
    assert dtypes["network.fusion_norm"] == torch.float32
    heads = {n: d for n, d in dtypes.items() if "head" in n and d is not None}
    assert set(heads.values()) == {torch.float32}


def test_float64_agrees_with_float32(frames):
    model = fresh()
    single = model(frames)
    double = model.double()(frames.double())
    assert double.depth_z.dtype == torch.float64
    torch.testing.assert_close(double.depth_z.float(), single.depth_z, rtol=1e-4, atol=1e-5)
