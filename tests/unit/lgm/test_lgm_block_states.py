"""The loss on what transformer blocks hand on."""

import pytest
import torch

from tiny_models import tiny_any4d_config, tiny_vggt
from vggrpo.backbones.any4d import Any4D
from vggrpo.lgm import block_loss, per_clip, recorded_blocks


@pytest.fixture
def geometry() -> Any4D:
    model = Any4D(tiny_any4d_config())
    model.reset_parameters(depth=3.0, generator=torch.Generator().manual_seed(0))
    return model.eval()


def frames(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, 3, generator=torch.Generator().manual_seed(1))


def test_a_model_entered_with_its_own_tokens_hands_on_what_it_hands_on_from_images(geometry: Any4D) -> None:
    images = frames()
    names = geometry.block_names("E1")
    with torch.no_grad():
        with recorded_blocks(geometry, names) as whole:
            geometry(images)
        tokens = geometry.tokens_at(images, ["E1"])["E1"]
        with recorded_blocks(geometry, names) as entered:
            geometry.finish_from("E1", *tokens, grid=(2, 2))
    assert entered.keys() == whole.keys() == set(names)
    assert block_loss(entered, whole) < 1e-10
    other = {name: state.flip(0) for name, state in whole.items()}
    assert block_loss(entered, other) > 1e-3


def test_only_blocks_behind_the_stitch_point_are_named(geometry: Any4D) -> None:
    encoder, multi_view = tiny_any4d_config().encoder_depth, tiny_any4d_config().multi_view_depth
    assert len(geometry.block_names("E0")) == encoder + multi_view
    assert len(geometry.block_names("E1")) == encoder + multi_view - 1
    assert len(geometry.block_names("F")) == multi_view
    before = geometry.block_names("E1")
    geometry.drop_before("E1")
    assert geometry.block_names("E1") == before


def test_blocks_of_vggt_are_found_and_recorded() -> None:
    vggt = tiny_vggt().eval()
    point = vggt.stitch_points[-1].name
    names = vggt.block_names(vggt.stitch_points[0].name)
    assert set(vggt.block_names(point)) < set(names)
    size = 2 * vggt.patch_size
    with torch.no_grad(), recorded_blocks(vggt, names) as states:
        vggt(torch.rand(2, 3, size, size, 3))
    lengths = {name: per_clip(state, 2).shape for name, state in states.items()}
    assert lengths.keys() == set(names)
    assert all(shape[0] == 2 for shape in lengths.values())


def test_views_of_a_clip_are_joined_in_order() -> None:
    by_view = torch.arange(2 * 3 * 4 * 5.0).view(6, 4, 5)
    joined = per_clip(by_view, batch=2)
    assert joined.shape == (2, 12, 5)
    torch.testing.assert_close(joined[1, 4:8], by_view[4])


def test_the_size_of_tokens_does_not_count_but_their_direction_does() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, unrelated = torch.randn(2, 4, 50, 64, generator=generator)
    assert block_loss({"a": 3 * tokens}, {"a": tokens}) < 1e-6
    assert block_loss({"a": unrelated}, {"a": tokens}).item() == pytest.approx(2.0, abs=0.1)


def test_gradients_reach_the_student_only_and_hooks_leave(geometry: Any4D) -> None:
    names = geometry.block_names("E0")
    with recorded_blocks(geometry, names) as states:
        geometry(frames(1))
    teacher = {name: torch.randn_like(state, requires_grad=True) for name, state in states.items()}
    block_loss(states, teacher).backward()
    assert all(state.grad is None for state in teacher.values())
    assert geometry.network.encoder.blocks[0].attention.qkv.weight.grad is not None
    assert not any(module._forward_hooks for module in geometry.modules())
