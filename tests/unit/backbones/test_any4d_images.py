"""Frames on their way into the network."""

import pytest
import torch

from vggrpo.backbones import resize_frames
from vggrpo.backbones.any4d import Any4D
from vggrpo.backbones.images import check_frames, normalise_images


def test_frames_of_the_right_size_are_returned_as_they_are():
    frames = torch.rand(1, 2, 8, 12, 3)
    assert resize_frames(frames, 8, 12) is frames


def test_resizing_keeps_constants_and_range():
    grey = torch.full((1, 2, 30, 40, 3), 0.3)
    torch.testing.assert_close(resize_frames(grey, 14, 21), torch.full((1, 2, 14, 21, 3), 0.3))
    checkers = (torch.arange(30)[:, None] + torch.arange(40)[None]).remainder(2).float()
    frames = checkers[None, None, :, :, None].expand(1, 1, 30, 40, 3)
    for size in ((60, 80), (7, 9)):
        resized = resize_frames(frames, *size)
        assert resized.shape == (1, 1, *size, 3)
        assert resized.min() >= 0
        assert resized.max() <= 1


def test_shrinking_averages_fine_detail_instead_of_aliasing():
    stripes = torch.arange(64).remainder(2).float()[None, None, None, :, None].expand(1, 1, 64, 64, 3)
    small = resize_frames(stripes, 16, 16)[:, :, :, 2:-2]
    torch.testing.assert_close(small, torch.full_like(small, 0.5), atol=0.05, rtol=0)


def test_resizing_keeps_views_and_colours_apart():
    frames = torch.rand(2, 3, 1, 1, 3).expand(2, 3, 10, 10, 3)
    resized = resize_frames(frames, 4, 6)
    torch.testing.assert_close(resized, frames[:, :, :4, :6], atol=1e-5, rtol=0)


def test_normalisation_is_imagenets():
    black, white = normalise_images(torch.zeros(1, 2, 2, 3)), normalise_images(torch.ones(1, 2, 2, 3))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(black[0, :, 0, 0], -mean / std)
    torch.testing.assert_close(white[0, :, 0, 0], (1 - mean) / std)
    assert white.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", ["height", "width"])
def test_sides_that_are_no_multiple_of_the_patch_are_refused(any4d: Any4D, side):
    shape = (1, 1, 30, 35, 3) if side == "height" else (1, 1, 28, 36, 3)
    with pytest.raises(ValueError, match=r"frames are \d+x\d+ pixels, .* multiples of 7; resize_frames"):
        any4d(torch.rand(shape))


@pytest.mark.parametrize("shape", [(1, 28, 35, 3), (1, 1, 3, 28, 35), (1, 0, 28, 35, 3)])
def test_other_shapes_are_refused(any4d: Any4D, shape):
    with pytest.raises(ValueError, match=r"but \[B, T, H, W, 3\] is expected"):
        any4d.tokens_at(torch.rand(shape), ["E0"])


def test_bytes_are_refused():
    with pytest.raises(TypeError, match=r"frames are torch\.uint8, but floating-point values in \[0, 1\]"):
        check_frames(torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8))


def test_an_empty_raster_is_refused():
    with pytest.raises(ValueError, match="the raster is 0x5"):
        resize_frames(torch.rand(1, 1, 4, 4, 3), 0, 5)
