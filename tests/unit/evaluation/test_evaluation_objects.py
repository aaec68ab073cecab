"""The presence of objects falls when they vanish, and hardly with anything else."""

import dataclasses

import pytest
import torch
from torch import Tensor

from vggrpo.evaluation import object_presence
from vggrpo.world import render_clips, sample_scene

GREY, RED, BLUE = (0.5, 0.5, 0.5), (0.8, 0.1, 0.1), (0.1, 0.2, 0.9)


def painted(*rectangles: tuple[slice, slice, tuple[float, float, float]]) -> Tensor:
    """[1, 2, 32, 40, 3]: a grey clip with coloured rectangles."""
    frames = torch.tensor(GREY).expand(1, 2, 32, 40, 3).clone()
    for rows, columns, colour in rectangles:
        frames[:, :, rows, columns] = torch.tensor(colour)
    return frames


@pytest.fixture(scope="module")
def with_objects() -> Tensor:
    return render_clips([sample_scene("validation", index) for index in range(12)], num_frames=9).frames


@pytest.fixture(scope="module")
def without_objects() -> Tensor:
    scenes = [sample_scene("validation", index) for index in range(12)]
    bare = [dataclasses.replace(scene, objects=()) for scene in scenes]
    return render_clips(bare, num_frames=9).frames


def test_an_object_of_another_colour_counts_with_its_area() -> None:
    red, blue = (slice(8, 16), slice(10, 20), RED), (slice(20, 24), slice(25, 30), BLUE)
    assert float(object_presence(painted())) == 0
    assert float(object_presence(painted(red))) == pytest.approx(80 / 1280)
    assert float(object_presence(painted(red, blue))) == pytest.approx(100 / 1280)


def test_what_fills_the_border_is_no_object() -> None:
    wall, ball = (slice(0, 32), slice(0, 20), BLUE), (slice(8, 16), slice(24, 34), RED)
    assert float(object_presence(painted(wall, ball))) == pytest.approx(80 / 1280)


def test_an_object_that_is_at_the_border_for_long_is_taken_for_surroundings() -> None:
    standing = painted((slice(12, 32), slice(10, 20), RED))
    assert float(object_presence(standing)) == 0
    passing = painted((slice(8, 28), slice(10, 20), RED)).repeat(1, 5, 1, 1, 1)
    passing[:, :2] = standing
    assert float(object_presence(passing)) == pytest.approx(200 / 1280)


def test_grey_on_grey_is_not_seen() -> None:
    assert float(object_presence(painted((slice(8, 16), slice(10, 20), (0.9, 0.9, 0.9))))) == 0


def test_a_black_clip_holds_nothing() -> None:
    assert float(object_presence(torch.zeros(1, 2, 16, 16, 3))) == 0


def test_it_falls_when_the_objects_of_world_clips_vanish(
    with_objects: Tensor, without_objects: Tensor
) -> None:
    present, absent = object_presence(with_objects), object_presence(without_objects)
    assert (absent < present).all()
    assert float(absent.mean()) < 0.15 * float(present.mean())


def test_it_falls_with_the_share_of_the_clips_that_lose_their_objects(
    with_objects: Tensor, without_objects: Tensor
) -> None:
    some = with_objects.clone()
    some[::3] = without_objects[::3]
    left = float(object_presence(some).mean() / object_presence(with_objects).mean())
    assert 0.4 < left < 0.9


@pytest.mark.parametrize("brightness", [0.7, 0.9, 1.1])
def test_brightness_changes_it_little(with_objects: Tensor, brightness: float) -> None:
    before = object_presence(with_objects).mean()
    after = object_presence((with_objects * brightness).clamp(0, 1)).mean()
    assert float(after / before) == pytest.approx(1, abs=0.03)


def test_paler_colours_and_noise_change_it_little(with_objects: Tensor) -> None:
    before = object_presence(with_objects).mean()
    grey = with_objects.mean(-1, keepdim=True)
    noise = 0.01 * torch.randn(with_objects.shape, generator=torch.Generator().manual_seed(0))
    for changed in (grey + 0.95 * (with_objects - grey), with_objects + noise):
        assert float(object_presence(changed.clamp(0, 1)).mean() / before) == pytest.approx(1, abs=0.08)


def test_a_clip_is_measured_alike_in_any_batch(with_objects: Tensor) -> None:
    alone = torch.cat([object_presence(clip[None]) for clip in with_objects[:3]])
    torch.testing.assert_close(object_presence(with_objects)[:3], alone, rtol=0, atol=1e-7)


def test_bad_clips_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected floating point \[B, T, H, W, 3\]"):
        object_presence(torch.zeros(1, 2, 3, 16, 16))
