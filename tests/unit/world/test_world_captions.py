import random

import pytest

from vggrpo.world import MAX_WORDS, SPLITS, VOCABULARY, caption_words, sample_scene, split_of_caption
from vggrpo.world.captions import CAMERA_MOVES, FAMILIES, OBJECT_MOVES, ObjectPlan, ScenePlan, sample_plan


def plans(count: int) -> list[ScenePlan]:
    rng = random.Random(7)
    return [sample_plan(rng) for _ in range(count)]


def test_a_caption_names_everything() -> None:
    room = ScenePlan(
        objects=(ObjectPlan("sphere", "red", "plain", "moves left"), ObjectPlan("box", "orange", "striped")),
        is_room=True,
        colour="green",
        floor_pattern="checkered",
        sky_colour="",
        camera_move="orbits right",
    )
    assert room.caption == (
        "a red sphere and a striped orange box in a green room with a checkered floor, "
        "the red sphere moves left, the camera orbits right"
    )
    field = ScenePlan((ObjectPlan("box", "orange", "plain"),), False, "brown", "cloudy", "orange", "drifts")
    assert field.caption == ("an orange box on a cloudy brown field under an orange sky, the camera drifts")


def test_vocabulary_is_small_sorted_and_sufficient() -> None:
    assert len(VOCABULARY) <= 70
    assert sorted(set(VOCABULARY)) == VOCABULARY
    used = {word for plan in plans(3000) for word in caption_words(plan.caption)}
    assert used == set(VOCABULARY)


def test_captions_are_short() -> None:
    assert max(len(caption_words(plan.caption)) for plan in plans(1000)) <= MAX_WORDS == 30


def test_captions_never_tell_whether_the_camera_shakes() -> None:
    assert not {"shaky", "steady", "smooth", "still", "handheld"} & set(VOCABULARY)


def test_objects_of_a_plan_differ_in_name_and_from_their_surroundings() -> None:
    for plan in plans(500):
        names = [thing.name for thing in plan.objects]
        assert len(set(names)) == len(names)
        assert plan.colour not in {thing.colour for thing in plan.objects}


def test_what_spins_can_be_seen_to_spin() -> None:
    for plan in plans(2000):
        for thing in plan.objects:
            if thing.move == "spins" and thing.shape != "box":
                assert thing.pattern != "plain"


def test_every_move_belongs_to_a_family_and_every_family_occurs() -> None:
    assert set(CAMERA_MOVES.values()) == set(FAMILIES)
    drawn = plans(1000)
    assert {plan.camera_move for plan in drawn} == set(CAMERA_MOVES)
    assert {thing.move for plan in drawn for thing in plan.objects} == {"", *OBJECT_MOVES}


def test_the_split_of_a_caption_is_a_function_of_its_string() -> None:
    captions = [plan.caption for plan in plans(2000)]
    shares = {split: sum(split_of_caption(c) == split for c in captions) / len(captions) for split in SPLITS}
    assert shares["train"] == pytest.approx(0.8, abs=0.03)
    assert shares["validation"] == pytest.approx(0.1, abs=0.02)
    assert shares["test"] == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_have_captions_of_their_split(split: str) -> None:
    for index in range(6):
        spec = sample_scene(split, index)
        assert split_of_caption(spec.caption) == split
        assert set(caption_words(spec.caption)) <= set(VOCABULARY)
