"""Which frames the teacher sees."""

import pytest
import torch

from vggrpo.backbones import LatentSpec
from vggrpo.lgm import teacher_frames


def test_one_frame_per_latent_frame(latent_spec: LatentSpec) -> None:
    video = torch.rand(2, 9, 12, 16, 3)
    views = teacher_frames(video, latent_spec, patch_size=4)
    assert torch.equal(views, video[:, [0, 4, 8]])


def test_raster_is_patch_size_times_token_grid(latent_spec: LatentSpec) -> None:
    video = torch.rand(1, 5, 10, 16, 3)  # latents 5 x 8, tokens 3 x 4
    views = teacher_frames(video, latent_spec, patch_size=7)
    assert views.shape == (1, 2, 21, 28, 3)
    assert views.min() >= 0
    assert views.max() <= 1
    grey = teacher_frames(torch.full_like(video, 0.3), latent_spec, patch_size=7)
    torch.testing.assert_close(grey, torch.full_like(grey, 0.3))


def test_bad_input(latent_spec: LatentSpec) -> None:
    with pytest.raises(ValueError, match="num_frames is 8"):
        teacher_frames(torch.rand(1, 8, 12, 16, 3), latent_spec, patch_size=4)
    with pytest.raises(ValueError, match=r"\[B, T, H, W, 3\]"):
        teacher_frames(torch.rand(9, 12, 16, 3), latent_spec, patch_size=4)
    with pytest.raises(TypeError, match="divide by 255"):
        teacher_frames(torch.zeros(1, 9, 12, 16, 3, dtype=torch.uint8), latent_spec, patch_size=4)
