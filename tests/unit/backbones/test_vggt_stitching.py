"""Entering the model in the middle, and cutting away what lies before."""

import gc
import weakref

import pytest
import torch
from torch import nn

from vggrpo.backbones.vggt import VGGT

POINTS = ("E0", "E1", "E2", "E3", "A0", "A1")
DEEP = tuple(f"A{j}" for j in range(2, 8))


def test_stitch_points_end_before_the_first_pair_that_feeds_a_head(vggt: VGGT):
    assert [point.name for point in vggt.stitch_points] == list(POINTS)
    assert [point.num_special_tokens for point in vggt.stitch_points] == [5, 5, 5, 5, 0, 5]
    assert [point.name for point in vggt.stitch_points if point.reference_specials] == ["A1"]
    assert {point.width for point in vggt.stitch_points} == {32}
    assert not any(point.lost for point in vggt.stitch_points)


def test_deep_stitch_points_lose_the_layers_before_them(vggt: VGGT):
    deep = vggt.deep_stitch_points
    assert tuple(point.name for point in deep) == DEEP
    assert {(point.width, point.num_special_tokens) for point in deep} == {(32, 5)}
    assert all(point.reference_specials and point.reference_patches for point in deep)
    lost = [[(head_input.name, head_input.width) for head_input in point.lost] for point in deep]
    layers = [("layer1", 64), ("layer3", 64), ("layer5", 64)]
    assert lost == [layers[:1], layers[:1], layers[:2], layers[:2], layers, layers]


def test_one_pass_gives_the_tokens_of_all_points(vggt_upstream, vggt: VGGT):
    found = vggt.tokens_at(vggt_upstream.frames, ["A1", "E2", "A0"])
    assert list(found) == ["A1", "E2", "A0"]
    for name, (patches, special) in found.items():
        assert patches.shape == (2, 4, 20, 32)
        assert special.shape == (2, 4, vggt.stitch_point(name).num_special_tokens, 32)


def test_no_block_after_the_last_point_runs(vggt_upstream, vggt: VGGT):
    ran = []
    for name, module in vggt.named_modules():
        if name.endswith("attention"):
            module.register_forward_hook(lambda _m, _i, _o, n=name: ran.append(n))
    vggt.tokens_at(vggt_upstream.frames, ["E0", "E1"])
    assert ran == ["network.encoder.blocks.0.attention"]
    ran.clear()
    vggt.tokens_at(vggt_upstream.frames, ["A1"])
    assert ran[3:] == [f"network.aggregator.{kind}_blocks.0.attention" for kind in ("frame", "global")]


def test_view_0_has_special_tokens_of_its_own_in_the_aggregator(vggt_upstream, vggt: VGGT):
    _, special = vggt.tokens_at(vggt_upstream.frames[:1, :1].expand(1, 3, -1, -1, -1), ["A1"])["A1"]
    torch.testing.assert_close(special[0, 1], special[0, 2], atol=1e-5, rtol=0)
    assert (special[0, 0] - special[0, 1]).abs().max() > 0.1


@pytest.mark.parametrize("point", [*POINTS, *DEEP])
def test_finishing_from_a_point_gives_the_same_scene(vggt_upstream, vggt: VGGT, point: str):
    whole = vggt(vggt_upstream.frames)
    names = [head_input.name for head_input in vggt.stitch_point(point).lost]
    found = vggt.tokens_at(vggt_upstream.frames, [point, *names])
    lost = {name: found[name][0] for name in names}
    finished = vggt.finish_from(point, *found[point], vggt_upstream.grid, lost)
    assert finished.as_dict().keys() == whole.as_dict().keys()
    for name in ("camera_to_world", "depth_z", "confidence"):
        expected = whole.as_dict()[name]
        torch.testing.assert_close(finished.as_dict()[name], expected, atol=2e-5, rtol=1e-5)


def test_a_scene_runs_no_point_head(vggt_upstream, vggt: VGGT):
    vggt.network.point_head.register_forward_hook(lambda *_: pytest.fail("the point head ran"))
    scene = vggt(vggt_upstream.frames)
    assert scene.scene_flow_from_ref is None
    assert scene.static_mask is None
    prediction = vggt.network.predict(vggt_upstream.frames, with_points=False)
    assert prediction.world_points is None
    assert prediction.point_confidence is None


def test_the_position_code_is_what_separates_equal_patches(vggt_upstream, vggt: VGGT):
    grey = torch.full_like(vggt_upstream.frames, 0.4)
    patches, _ = vggt.tokens_at(grey, ["E0"])["E0"]
    code = vggt.position_code("E0", vggt_upstream.grid)
    assert code is not None
    plain = patches - code
    torch.testing.assert_close(plain, plain[:, :, :1].expand_as(plain), atol=1e-5, rtol=0)
    assert all(vggt.position_code(point, vggt_upstream.grid) is None for point in POINTS[1:])


def test_tokens_of_another_shape_are_refused(vggt: VGGT):
    patches = torch.zeros(2, 4, 20, 32)
    with pytest.raises(ValueError, match=r"special_tokens have shape .* at A0 .* \[B, T, 0, 32\]"):
        vggt.finish_from("A0", patches, torch.zeros(2, 4, 5, 32), (4, 5))
    with pytest.raises(ValueError, match=r"special_tokens have shape .* at A1 .* \[B, T, 5, 32\]"):
        vggt.finish_from("A1", patches, torch.zeros(2, 4, 0, 32), (4, 5))
    with pytest.raises(ValueError, match="at A2 the heads have lost layer1, but what is supplied is nothing"):
        vggt.finish_from("A2", patches, torch.zeros(2, 4, 5, 32), (4, 5))
    with pytest.raises(ValueError, match=r"'A8', .* A0, A1 and, with auxiliary connectors, A2 ... A7"):
        vggt.finish_from("A8", patches, torch.zeros(2, 4, 5, 32), (4, 5))


@pytest.mark.parametrize("point", POINTS)
def test_dropping_frees_the_layers_and_keeps_the_rest_intact(vggt_upstream, vggt: VGGT, point: str):
    tokens = vggt.tokens_at(vggt_upstream.frames, [point])[point]
    before = vggt.finish_from(point, *tokens, vggt_upstream.grid).depth_z
    network, number = vggt.network, POINTS.index(point)
    encoder, aggregator = network.encoder, network.aggregator
    dropped = [encoder.patch_embed.weight, encoder.register_tokens, network.point_head.norm.weight]
    dropped += [block.attention.qkv.weight for block in encoder.blocks[:number]]
    dropped += [encoder.norm.weight] if point[0] == "A" else []
    if point == "A1":
        dropped += [aggregator.camera_token, aggregator.register_tokens]
        dropped += [
            blocks[0].mlp.fc1.weight for blocks in (aggregator.frame_blocks, aggregator.global_blocks)
        ]
    references = [weakref.ref(parameter) for parameter in dropped]
    del dropped, encoder, aggregator, network

    vggt.drop_before(point)
    gc.collect()
    assert all(reference() is None for reference in references)
    assert torch.equal(vggt.finish_from(point, *tokens, vggt_upstream.grid).depth_z, before)
    with pytest.raises(ValueError, match=f"can no longer read frames: its layers before {point}"):
        vggt(vggt_upstream.frames)


def test_cutting_further_is_possible_and_cutting_less_changes_nothing(vggt_upstream, vggt: VGGT):
    tokens = vggt.tokens_at(vggt_upstream.frames, ["A0", "A1"])
    for point in ("E1", "A0", "A1", "E2"):
        vggt.drop_before(point)
    assert vggt.dropped_before == "A1"
    assert not any(name.startswith("network.encoder") for name, _ in vggt.named_parameters())
    vggt.finish_from("A1", *tokens["A1"], vggt_upstream.grid)
    with pytest.raises(ValueError, match="stitch point is 'A0', but the layers before A1 have been dropped"):
        vggt.finish_from("A0", *tokens["A0"], vggt_upstream.grid)


def test_a_model_cut_deep_in_its_aggregator(vggt_upstream, vggt: VGGT):
    found = vggt.tokens_at(vggt_upstream.frames, ["A4", "layer1", "layer3"])
    lost = {name: found[name][0] for name in ("layer1", "layer3")}
    before = vggt.finish_from("A4", *found["A4"], vggt_upstream.grid, lost).as_dict()
    vggt.drop_before("A4")
    names = [name for name, _ in vggt.network.aggregator.named_parameters()]
    assert {int(name.split(".")[1]) for name in names} == {4, 5, 6, 7}
    after = vggt.finish_from("A4", *found["A4"], vggt_upstream.grid, lost).as_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("point", ["E0", "E2", "A0", "A1", "A3"])
@pytest.mark.parametrize("drop", [False, True])
def test_lora_targets_are_the_linear_and_convolution_layers_that_run(vggt_upstream, vggt: VGGT, point, drop):
    names = [head_input.name for head_input in vggt.stitch_point(point).lost]
    found = vggt.tokens_at(vggt_upstream.frames, [point, *names])
    tokens, lost = found[point], {name: found[name][0] for name in names}
    if drop:
        vggt.drop_before(point)
    ran = set()
    for name, module in vggt.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, _o, n=name: ran.add(n))
    vggt.finish_from(point, *tokens, vggt_upstream.grid, lost)
    assert set(vggt.lora_target_modules(point)) == ran


def test_the_token_gradient_is_finite_and_reaches_every_view(vggt_upstream, vggt: VGGT):
    tokens = vggt.tokens_at(vggt_upstream.frames, ["A1"])["A1"]
    patches, special = (x.detach().requires_grad_() for x in tokens)
    scene = vggt.finish_from("A1", patches, special, vggt_upstream.grid)
    (scene.depth_z.mean() + scene.camera_to_world.square().mean()).backward()
    for gradient in (patches.grad, special.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert (gradient.abs().sum(dim=(2, 3)) > 0).all()
