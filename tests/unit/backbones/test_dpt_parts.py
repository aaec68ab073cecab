"""Dense heads work on large rasters a few images at once: the same maps and gradients, for less memory."""

import pytest
import torch
from torch import Tensor

from tiny_models import tiny_any4d_config, tiny_vggt
from vggrpo.backbones import dpt
from vggrpo.backbones.any4d.heads import DenseHead
from vggrpo.training.plan.counting import Meter


@pytest.fixture
def two_at_once(monkeypatch):
    """Parts of two images of 32x48 pixels."""
    monkeypatch.setattr(dpt, "PIXELS_AT_ONCE", 2 * 32 * 48 + 7)


def any4d_head() -> tuple[DenseHead, list[Tensor]]:
    torch.manual_seed(0)
    config = tiny_any4d_config()
    widths = (config.encoder_dim, *[config.multi_view_dim] * 3)
    return DenseHead(config, 3), [torch.randn(5, width, 4, 6) for width in widths]


def run(head: DenseHead, maps: list[Tensor]) -> tuple[Tensor, list[Tensor], int]:
    """Its maps, the gradients of parameters and inputs, and the peak of both passes."""
    inputs = [x.clone().requires_grad_() for x in maps]
    head.zero_grad()
    with Meter() as meter:
        dense = head(inputs, (32, 48))
        dense.square().sum().backward()
    return dense.detach(), [x.grad for x in (*inputs, *head.parameters())], meter.peak


def test_parts_give_the_same_maps_and_gradients_for_less_memory(two_at_once):
    head, maps = any4d_head()
    whole, gradients, most = run(head, maps)
    head.recompute = True
    parts, same, least = run(head, maps)
    torch.testing.assert_close(parts, whole)
    for one, other in zip(same, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert least < 0.7 * most


def test_a_small_raster_is_recomputed_too():
    head, maps = any4d_head()

    def kept() -> int:
        with Meter() as meter:
            dense = head([x.clone().requires_grad_() for x in maps], (32, 48))
            assert dense.requires_grad
            return meter.alive

    whole = kept()
    head.recompute = True
    assert kept() < 0.3 * whole


@torch.no_grad()
def test_without_gradients_parts_are_the_rule(monkeypatch):
    head, maps = any4d_head()
    vggt = tiny_vggt()
    frames = torch.rand(1, 5, 32, 48, 3)

    def both() -> tuple[Tensor, Tensor, int]:
        with Meter() as meter:
            dense = head(maps, (32, 48))
        return dense, vggt(frames).depth_z, meter.peak

    whole, depth, most = both()
    monkeypatch.setattr(dpt, "PIXELS_AT_ONCE", 1)  # less than an image: one at once
    parts, same_depth, least = both()
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(same_depth, depth)
    assert least < 0.5 * most
