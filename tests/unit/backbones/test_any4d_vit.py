"""The shared vision-transformer parts that the parity fixture does not reach."""

import pytest
import torch
import torch.nn.functional as F

from vggrpo.backbones.vit import LONGEST_EXPLICIT_SEQUENCE, ImageEncoder, attend


@pytest.mark.parametrize("length", [1, 7, LONGEST_EXPLICIT_SEQUENCE, LONGEST_EXPLICIT_SEQUENCE + 1])
def test_attention_is_the_fused_kernels(length):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 8, generator=generator).double().requires_grad_() for _ in range(3))
    weight = torch.randn(2, 3, length, 8, generator=generator).double()
    ours, fused = attend(q, k, v), F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours, fused)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((fused * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def encoder(num_registers: int = 0, antialias: bool = False) -> ImageEncoder:
    torch.manual_seed(0)
    model = ImageEncoder(
        patch_size=4,
        dim=8,
        depth=1,
        num_heads=2,
        mlp_ratio=2,
        position_grid=4,
        num_registers=num_registers,
        antialias=antialias,
    )
    with torch.no_grad():
        model.position_table.normal_()
        model.class_token.normal_()
        if model.register_tokens is not None:
            model.register_tokens.normal_()
    return model


def test_registers_stand_between_class_and_patches_and_have_no_position():
    with_registers, without = encoder(num_registers=3), encoder()
    without.load_state_dict(with_registers.state_dict(), strict=False)
    images = torch.rand(2, 3, 8, 12)
    tokens, plain = with_registers.embed(images), without.embed(images)
    assert tokens.shape == (2, 1 + 3 + 6, 8)
    assert with_registers.register_tokens is not None
    assert torch.equal(tokens[:, 1:4], with_registers.register_tokens.expand(2, 3, 8))
    assert torch.equal(torch.cat([tokens[:, :1], tokens[:, 4:]], dim=1), plain)
    assert with_registers.finish(tokens).shape == (2, 6, 8)


@pytest.mark.parametrize("antialias", [False, True])
def test_the_position_table_is_used_as_it_is_on_its_own_grid_only(antialias):
    model = encoder(antialias=antialias)
    assert torch.equal(model.position_code((4, 4)), model.position_table[:, 1:])
    assert model.position_code((2, 8)).shape == (1, 16, 8)
    assert not torch.equal(model.position_code((2, 8)), model.position_table[:, 1:])


def test_rows_come_before_columns():
    model = encoder()
    with torch.no_grad():
        model.position_table[:, 1:] = torch.arange(4.0).repeat_interleave(4)[:, None]
    rows = model.position_code((8, 6)).reshape(8, 6, 8)
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows))
    assert (rows.diff(dim=0)[1:-1] > 0).all()


def test_dropping_registers_and_all():
    model = encoder(num_registers=2)
    tokens = model.embed(torch.rand(1, 3, 8, 8))
    expected = model.finish(tokens)
    model.drop_before(0)
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {"blocks", "norm"}
    assert torch.equal(model.finish(tokens), expected)
