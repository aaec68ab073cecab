"""The epipolar error of optical flow, on scenes whose geometry is exact."""

import numpy as np
import pytest
import torch

from vggrpo.evaluation import auc, flow_epipolar_error
from vggrpo.world import render_clips, sample_scene
from vggrpo.world.faults import FAULT_KINDS, Fault

SCENES = 24


def errors(fault: Fault | None = None) -> np.ndarray:
    specs = [sample_scene("test", index) for index in range(SCENES)]
    clips = render_clips(specs, num_frames=17, height=48, width=64, fault=fault)
    return flow_epipolar_error(clips.frames).numpy()


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return errors()


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_worlds_that_do_not_hold_have_larger_errors(clean: np.ndarray, kind: str) -> None:
    faulty = errors(Fault(kind))
    assert np.isfinite(clean).all()
    assert np.isfinite(faulty).all()
    assert (faulty > clean).mean() >= 0.75
    assert auc(faulty, clean) > 0.7


def test_a_shifted_picture_has_no_error_and_an_unmoved_one_none_to_measure() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 20, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, size=(96, 160), mode="bicubic")[0].clamp(0, 1)
    moving = torch.stack([picture[:, :, t : t + 128] for t in range(9)]).permute(0, 2, 3, 1)
    still = moving[:1].expand(9, -1, -1, -1)
    moved, unmoved = flow_epipolar_error(torch.stack([moving, still])).tolist()
    assert moved < 0.02
    assert np.isnan(unmoved)


def test_a_clip_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="hold 4 frames a clip, but this check needs at least 5"):
        flow_epipolar_error(torch.rand(1, 4, 48, 64, 3))
