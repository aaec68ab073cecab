import colorsys
import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from vggrpo.evaluation import (
    brightness,
    clip_thumbnail,
    contrast,
    group_diversity,
    pixel_statistics,
    saturation,
    sharpness,
)


@pytest.fixture
def clips() -> Tensor:
    return torch.rand(2, 3, 20, 24, 3, generator=torch.Generator().manual_seed(0))


def test_statistics_of_uniform_colours_are_known() -> None:
    orange = torch.tensor([0.9, 0.6, 0.3]).expand(1, 2, 8, 8, 3)
    assert float(brightness(orange)) == pytest.approx(0.299 * 0.9 + 0.587 * 0.6 + 0.114 * 0.3)
    assert float(saturation(orange)) == pytest.approx(colorsys.rgb_to_hsv(0.9, 0.6, 0.3)[1])
    assert float(contrast(orange)) == pytest.approx(0, abs=1e-6)
    assert float(sharpness(orange)) == pytest.approx(0, abs=1e-6)


def test_black_is_not_saturated_and_two_halves_have_the_greatest_contrast() -> None:
    frames = torch.zeros(1, 1, 8, 8, 3)
    assert float(saturation(frames)) == 0
    frames[..., :4, :] = 1
    assert float(contrast(frames)) == pytest.approx(0.5)


def test_statistics_agree_with_opencv(clips: Tensor) -> None:
    images = (clips * 255).numpy()
    grey = np.stack([[cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip] for clip in images])
    hsv = np.stack([[cv2.cvtColor(frame / 255, cv2.COLOR_RGB2HSV) for frame in clip] for clip in images])
    laplacian = [[cv2.Laplacian(frame, cv2.CV_32F)[1:-1, 1:-1].var() for frame in clip] for clip in grey]
    np.testing.assert_allclose(brightness(clips), grey.mean((1, 2, 3)) / 255, rtol=1e-4)
    np.testing.assert_allclose(contrast(clips), grey.std((2, 3)).mean(1) / 255, rtol=1e-4)
    np.testing.assert_allclose(saturation(clips), hsv[..., 1].mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(sharpness(clips), np.mean(laplacian, 1), rtol=1e-3)


def test_washing_out_darkening_and_blurring_are_each_seen(clips: Tensor) -> None:
    washed = pixel_statistics(0.5 + 0.5 * (clips - 0.5))
    dark = pixel_statistics(0.5 * clips)
    blurred = pixel_statistics((clips + clips.roll(1, 3) + clips.roll(1, 2)) / 3)
    plain = pixel_statistics(clips)
    assert (washed["contrast"] < 0.6 * plain["contrast"]).all()
    assert (washed["saturation"] < plain["saturation"]).all()
    assert (dark["brightness"] < 0.6 * plain["brightness"]).all()
    assert (blurred["sharpness"] < 0.5 * plain["sharpness"]).all()


def test_diversity_of_samples_at_known_distances() -> None:
    samples = torch.stack([torch.full((3, 4), value) for value in (0.0, 0.3, 0.9)])
    assert float(group_diversity(samples)) == pytest.approx((0.3 + 0.9 + 0.6) / 3)
    assert float(group_diversity(samples[:1].expand(4, 3, 4))) == 0


def test_diversity_of_independent_noise_is_its_closed_form() -> None:
    samples = torch.randn(8, 20_000, generator=torch.Generator().manual_seed(1))
    assert float(group_diversity(samples)) == pytest.approx(math.sqrt(2), rel=0.01)


def test_diversity_does_not_depend_on_order(clips: Tensor) -> None:
    samples = torch.cat([clips, 1 - clips, clips**2])
    torch.testing.assert_close(group_diversity(samples), group_diversity(samples.flip(0)))


def test_thumbnails_keep_the_mean_and_are_never_enlarged(clips: Tensor) -> None:
    small = clip_thumbnail(clips, side=10, times=3)
    assert small.shape == (2, 3, 3, 10, 12)
    torch.testing.assert_close(small.mean((2, 3, 4)), clips.mean((1, 2, 3)))
    assert clip_thumbnail(clips, side=64, times=9).shape == (2, 3, 3, 20, 24)


def test_one_sample_has_no_diversity(clips: Tensor) -> None:
    with pytest.raises(ValueError, match="needs at least two"):
        group_diversity(clips[:1])
