"""Entering the model in the middle, and cutting away what lies before."""

import gc
import weakref

import pytest
import torch
from torch import nn

from vggrpo.backbones.any4d import Any4D

POINTS = ("E0", "E1", "E2", "E3", "F")
DEEP = tuple(f"M{j}" for j in range(8))


def test_stitch_points(any4d: Any4D):
    assert [point.name for point in any4d.stitch_points] == list(POINTS)
    assert [point.num_special_tokens for point in any4d.stitch_points] == [1, 1, 1, 1, 0]
    assert {point.width for point in any4d.stitch_points} == {32}
    assert not any(point.lost for point in any4d.stitch_points)


def test_deep_stitch_points_lose_what_the_heads_read_before_them(any4d: Any4D):
    deep = any4d.deep_stitch_points
    assert tuple(point.name for point in deep) == DEEP
    assert {(point.width, point.num_special_tokens) for point in deep} == {(24, 1)}
    assert all(point.reference_patches for point in deep)
    lost = {point.name: [head_input.name for head_input in point.lost] for point in deep}
    assert lost["M3"] == ["fused"]
    assert lost["M4"] == lost["M5"] == ["fused", "hook3"]
    assert lost["M6"] == lost["M7"] == ["fused", "hook3", "hook5"]


def test_one_pass_gives_the_tokens_of_all_points(upstream, any4d: Any4D):
    found = any4d.tokens_at(upstream.frames, ["F", "E2", "E0"])
    assert list(found) == ["F", "E2", "E0"]
    for name, (patches, special) in found.items():
        count = any4d.stitch_point(name).num_special_tokens
        assert patches.shape == (2, 4, 20, 32)
        assert special.shape == (2, 4, count, 32)


def test_no_block_after_the_last_point_runs(upstream, any4d: Any4D):
    ran = []
    for index, block in enumerate(any4d.network.encoder.blocks):
        block.register_forward_hook(lambda _m, _i, _o, k=index: ran.append(k))
    any4d.tokens_at(upstream.frames, ["E0", "E1"])
    assert ran == [0]
    assert any4d.tokens_at(upstream.frames, []) == {}
    any4d.network.multi_view.blocks[4].register_forward_hook(lambda *_: pytest.fail("block 4 ran"))
    assert list(any4d.tokens_at(upstream.frames, ["hook3", "M4"])) == ["hook3", "M4"]


@pytest.mark.parametrize("point", [*POINTS, *DEEP])
def test_finishing_from_a_point_gives_the_same_scene(upstream, any4d: Any4D, point: str):
    whole = any4d(upstream.frames)
    names = [head_input.name for head_input in any4d.stitch_point(point).lost]
    found = any4d.tokens_at(upstream.frames, [point, *names])
    lost = {name: found[name][0] for name in names}
    finished = any4d.finish_from(point, *found[point], upstream.grid, lost)
    for name, value in whole.as_dict().items():
        torch.testing.assert_close(finished.as_dict()[name], value, atol=2e-5, rtol=1e-5)


def test_the_position_code_is_what_separates_equal_patches(upstream, any4d: Any4D):
    grey = torch.full_like(upstream.frames, 0.4)
    patches, _ = any4d.tokens_at(grey, ["E0"])["E0"]
    code = any4d.position_code("E0", upstream.grid)
    assert code is not None
    assert code.shape == (20, 32)
    plain = patches - code
    torch.testing.assert_close(plain, plain[:, :, :1].expand_as(plain), atol=1e-5, rtol=0)
    assert all(any4d.position_code(point, upstream.grid) is None for point in (*POINTS[1:], *DEEP))


def test_an_unknown_point_is_refused(upstream, any4d: Any4D):
    message = "stitch point is 'E9', .* has E0, E1, E2, E3, F and, with auxiliary connectors, M0 ... M7"
    with pytest.raises(ValueError, match=message):
        any4d.tokens_at(upstream.frames, ["E9"])
    with pytest.raises(ValueError, match="'M8'"):
        any4d.drop_before("M8")


@pytest.mark.parametrize(
    ("patch_shape", "special_shape", "name"),
    [
        ((2, 4, 19, 32), (2, 4, 1, 32), "patch_tokens"),
        ((2, 4, 20, 24), (2, 4, 1, 32), "patch_tokens"),
        ((8, 20, 32), (8, 1, 32), "patch_tokens"),
        ((2, 4, 20, 32), (2, 4, 0, 32), "special_tokens"),
        ((2, 4, 20, 32), (2, 3, 1, 32), "special_tokens"),
    ],
)
def test_tokens_of_another_shape_are_refused(any4d: Any4D, patch_shape, special_shape, name):
    with pytest.raises(ValueError, match=rf"{name} have shape .* at E1 with a grid of 4x5 \[B, T, \d+, 32\]"):
        any4d.finish_from("E1", torch.zeros(patch_shape), torch.zeros(special_shape), (4, 5))


def test_what_is_lost_must_be_supplied_and_nothing_else(upstream, any4d: Any4D):
    patches, special = any4d.tokens_at(upstream.frames, ["M4"])["M4"]
    fused, hook = torch.zeros(2, 4, 20, 32), torch.zeros(2, 4, 20, 24)
    with pytest.raises(ValueError, match="at M4 the heads have lost fused, hook3, but"):
        any4d.finish_from("M4", patches, special, upstream.grid, {"fused": fused})
    with pytest.raises(ValueError, match=r"hook3 have shape .* at M4 .* \[B, T, 20, 24\]"):
        any4d.finish_from("M4", patches, special, upstream.grid, {"fused": fused, "hook3": hook[:, :, 1:]})
    with pytest.raises(ValueError, match="at F the heads have lost nothing, but what is supplied is fused"):
        any4d.finish_from("F", fused, fused[:, :, :0], upstream.grid, {"fused": fused})


@pytest.mark.parametrize("point", POINTS)
def test_dropping_frees_the_layers_and_keeps_the_rest_intact(upstream, any4d: Any4D, point: str):
    tokens = any4d.tokens_at(upstream.frames, [point])[point]
    before = any4d.finish_from(point, *tokens, upstream.grid).depth_z
    encoder = any4d.network.encoder
    depth = any4d.config.encoder_depth
    dropped = [encoder.patch_embed.weight, encoder.position_table, encoder.class_token]
    number = POINTS.index(point)
    dropped += [block.attention.qkv.weight for block in encoder.blocks[:number]]
    dropped += [encoder.norm.weight] if point == "F" else []
    references = [weakref.ref(parameter) for parameter in dropped]
    total = sum(p.numel() for p in any4d.parameters())
    del dropped, encoder

    any4d.drop_before(point)
    gc.collect()
    assert all(reference() is None for reference in references)
    assert sum(p.numel() for p in any4d.parameters()) < total
    assert len(any4d.network.encoder.blocks) == depth
    torch.testing.assert_close(
        any4d.finish_from(point, *tokens, upstream.grid).depth_z, before, rtol=0, atol=0
    )


def test_a_cut_model_refuses_frames_and_earlier_points(upstream, any4d: Any4D):
    tokens = any4d.tokens_at(upstream.frames, ["E1", "E2", "E3"])
    any4d.drop_before("E2")
    any4d.drop_before("E2")
    assert any4d.dropped_before == "E2"
    with pytest.raises(ValueError, match="can no longer read frames: its layers before E2 have been dropped"):
        any4d(upstream.frames)
    with pytest.raises(ValueError, match="can no longer read frames"):
        any4d.tokens_at(upstream.frames, ["E3"])
    with pytest.raises(ValueError, match="can no longer read frames"):
        any4d.position_code("E0", upstream.grid)
    with pytest.raises(ValueError, match="stitch point is 'E1', but the layers before E2 have been dropped"):
        any4d.finish_from("E1", *tokens["E1"], upstream.grid)
    any4d.finish_from("E3", *tokens["E3"], upstream.grid)


def test_cutting_further_is_possible_and_cutting_less_changes_nothing(upstream, any4d: Any4D):
    tokens = any4d.tokens_at(upstream.frames, ["F"])["F"]
    any4d.drop_before("E1")
    any4d.drop_before("F")
    any4d.drop_before("E2")
    assert any4d.dropped_before == "F"
    assert not any(name.startswith("network.encoder") for name, _ in any4d.named_parameters())
    any4d.finish_from("F", *tokens, upstream.grid)


def test_a_model_cut_deep_in_its_transformer(upstream, any4d: Any4D):
    network = any4d.network
    found = any4d.tokens_at(upstream.frames, ["M4", "fused", "hook3"])
    lost = {name: found[name][0] for name in ("fused", "hook3")}
    before = any4d.finish_from("M4", *found["M4"], upstream.grid, lost).as_dict()
    dropped = [network.fusion_norm.weight, network.scale_token, network.multi_view.project.weight]
    dropped += [block.attention.qkv.weight for block in network.multi_view.blocks[:4]]
    references = [weakref.ref(parameter) for parameter in dropped]
    del dropped

    for point in ("F", "M4", "M0"):
        any4d.drop_before(point)
    gc.collect()
    assert any4d.dropped_before == "M4"
    assert all(reference() is None for reference in references)
    assert not any(name.startswith("network.encoder") for name, _ in any4d.named_parameters())
    after = any4d.finish_from("M4", *found["M4"], upstream.grid, lost).as_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with pytest.raises(ValueError, match="stitch point is 'M3', but the layers before M4 have been dropped"):
        any4d.finish_from("M3", *found["M4"], upstream.grid, {"fused": lost["fused"]})


@pytest.mark.parametrize("point", [*POINTS, "M0", "M3"])
@pytest.mark.parametrize("drop", [False, True])
def test_lora_targets_are_the_linear_and_convolution_layers_that_run(upstream, any4d: Any4D, point, drop):
    names = [head_input.name for head_input in any4d.stitch_point(point).lost]
    found = any4d.tokens_at(upstream.frames, [point, *names])
    tokens, lost = found[point], {name: found[name][0] for name in names}
    if drop:
        any4d.drop_before(point)
    ran = set()
    for name, module in any4d.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, _o, n=name: ran.add(n))
    any4d.finish_from(point, *tokens, upstream.grid, lost)
    assert set(any4d.lora_target_modules(point)) == ran


def test_the_token_gradient_is_finite_and_reaches_every_view(upstream, any4d: Any4D):
    patches, special = (x.detach().requires_grad_() for x in any4d.tokens_at(upstream.frames, ["E1"])["E1"])
    scene = any4d.finish_from("E1", patches, special, upstream.grid)
    (scene.depth_z.mean() + scene.camera_to_world.square().mean()).backward()
    for gradient in (patches.grad, special.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert (gradient.abs().sum(dim=(2, 3)) > 0).all()
