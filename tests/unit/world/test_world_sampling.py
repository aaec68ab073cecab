import math
import re
import subprocess
import sys

import pytest
import torch

from vggrpo.world import captions, sample_scene
from vggrpo.world.paths import scene_motion, steady_camera_motion


@pytest.fixture(scope="module")
def specs() -> list:
    return [sample_scene("train", index) for index in range(140)]


def test_a_scene_is_the_same_for_ever() -> None:
    sample_scene("train", 5)
    again = sample_scene("train", 3)
    assert again == sample_scene("train", 3)
    assert again != sample_scene("train", 4)
    assert again.caption != sample_scene("validation", 3).caption


def test_a_scene_is_the_same_in_another_process(specs: list) -> None:
    code = "from vggrpo.world import sample_scene; print(repr(sample_scene('train', 3)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == repr(specs[3])


def test_the_world_is_balanced(specs: list) -> None:
    count = len(specs)
    assert sum(spec.is_shaky for spec in specs) / count == pytest.approx(0.5, abs=0.15)
    assert sum(spec.is_dynamic for spec in specs) / count == pytest.approx(0.5, abs=0.15)
    assert sum(spec.surroundings.is_room for spec in specs) / count == pytest.approx(0.6, abs=0.15)
    for number in (1, 2, 3):
        assert sum(len(spec.objects) == number for spec in specs) / count > 0.04


def test_captions_tell_the_motion(specs: list) -> None:
    words = {"linear": "moves", "circular": "circles", "spinning": "spins"}
    for spec in specs:
        said = spec.caption.rsplit(",", 1)[0]
        for thing in spec.objects:
            assert thing.motion == "rest" or words[thing.motion] in said
        assert spec.is_dynamic == any(word in said for word in words.values())


def test_objects_move_as_their_captions_say(specs: list) -> None:
    """Left, right, closer and away are those of the camera halfway its path."""
    checked = set()
    for spec in specs:
        linear = [thing for thing in spec.objects if thing.motion == "linear"]
        if len(linear) != 1:
            continue
        (direction,) = re.findall(r"moves (left|right|closer|away)", spec.caption)
        camera = steady_camera_motion([spec.camera], 3)[0, 1, :3, :3]
        axis = {"left": -camera[:, 0], "right": camera[:, 0], "closer": -camera[:, 2], "away": camera[:, 2]}
        travel = torch.tensor(linear[0].travel, dtype=torch.float64)
        assert float(travel @ axis[direction]) > 0.7 * float(travel.norm()) > 0.7
        checked.add(direction)
    assert len(checked) == 4


def test_cameras_move_as_their_captions_say(specs: list) -> None:
    seen = set()
    for spec in specs:
        if spec.is_shaky:
            continue
        poses = scene_motion([spec], 17).camera_to_scene[0]
        step = poses[0, :3, :3].T @ (poses[-1, :3, 3] - poses[0, :3, 3])
        turned = poses[0, :3, :3].T @ poses[-1, :3, 2]
        move = spec.caption.rsplit("the camera ", 1)[1]
        measured = {
            "moves forward": step[2],
            "moves backward": -step[2],
            "slides left": -step[0],
            "slides right": step[0],
            "orbits left": -step[0],
            "orbits right": step[0],
            "pans left": -turned[0],
            "pans right": turned[0],
            "rises": -(poses[-1, 1, 3] - poses[0, 1, 3]),
            "sinks": poses[-1, 1, 3] - poses[0, 1, 3],
            "drifts": step.norm(),
        }
        assert float(measured[move]) > 0.2, spec.caption
        seen.add(move)
    assert len(seen) == 11


def test_cameras_stay_inside_rooms_and_above_the_ground(specs: list) -> None:
    for spec in specs:
        motion = scene_motion([spec], 17)
        centres = motion.camera_to_scene[0, :, :3, 3]
        assert float(centres[:, 1].max()) < -0.1
        place = spec.surroundings
        if place.is_room:
            assert bool((centres > torch.tensor(place.lower) + 0.05).all())
            assert bool((centres[:, [0, 2]] < torch.tensor(place.upper)[[0, 2]] - 0.05).all())
        else:
            assert float(centres.norm(dim=-1).max()) < place.dome_radius - 0.5


def test_objects_stand_on_the_floor_and_never_touch(specs: list) -> None:
    for spec in specs:
        poses = scene_motion([spec], 17).object_to_scene[0]
        for k, thing in enumerate(spec.objects):
            assert thing.position[1] == pytest.approx(-thing.half_extents[1])
            for j in range(k):
                other = spec.objects[j]
                gap = (poses[:, k, :3, 3] - poses[:, j, :3, 3])[:, [0, 2]].norm(dim=-1).min()
                assert float(gap) > 0.9 * max(thing.half_extents[0], other.half_extents[0])


def test_the_light_is_a_unit_vector_from_above(specs: list) -> None:
    for spec in specs:
        assert math.hypot(*spec.light) == pytest.approx(1)
        assert spec.light[1] < 0


def test_captions_of_a_split() -> None:
    assert captions("test", 3) == [sample_scene("test", index).caption for index in range(3)]


def test_seeds_and_captions_of_splits_are_disjoint() -> None:
    train, validation = set(captions("train", 60)), set(captions("validation", 30))
    test = set(captions("test", 30))
    assert not train & validation
    assert not train & test
    assert not validation & test


@pytest.mark.parametrize(
    ("split", "index", "message"),
    [("training", 0, "split is 'training'; expected one of train"), ("train", -1, "index is -1; expected 0")],
)
def test_bad_arguments_are_named(split: str, index: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_scene(split, index)
