"""Draws scenes: clip i of a split is the same scene for ever, whatever else is drawn."""

import random

from vggrpo.io import derive_seed
from vggrpo.world.cameras import draw_camera
from vggrpo.world.captions import SPLITS, ScenePlan, sample_plan, split_of_caption
from vggrpo.world.draws import uniform
from vggrpo.world.layouts import draw_layout, first_good_layout, ground_reach
from vggrpo.world.specs import SceneSpec
from vggrpo.world.surroundings import draw_light, draw_surroundings

LAYOUTS_PER_CAMERA = 8
CAMERAS_PER_PLAN = 25


def sample_scene(split: str, index: int) -> SceneSpec:
    """Scene `index` of "train", "validation" or "test".

    Splits share no seed, and no caption string: a plan whose caption belongs to another split is drawn again.

    Raises:
        ValueError: if the split is unknown or the index negative.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"index is {index}; expected 0 or more")
    rng = random.Random(derive_seed("world", split, index))
    while True:
        plan = sample_plan(rng)
        if split_of_caption(plan.caption) != split:
            continue
        spec = _realise(rng, plan, split, index)
        if spec is not None:
            return spec


def _realise(rng: random.Random, plan: ScenePlan, split: str, index: int) -> SceneSpec | None:
    """A scene as planned; None if no good layout turned up and another plan should be tried."""
    for _ in range(CAMERAS_PER_PLAN):
        camera = draw_camera(rng, plan.camera_move)
        layouts = [draw_layout(rng, plan.objects, camera) for _ in range(LAYOUTS_PER_CAMERA)]
        objects = first_good_layout(layouts, camera)
        if objects is None:
            continue
        return SceneSpec(
            split=split,
            index=index,
            caption=plan.caption,
            surroundings=draw_surroundings(rng, plan, *ground_reach(objects, camera)),
            objects=objects,
            camera=camera,
            light=draw_light(rng, 0.5 * (camera.start[3] + camera.end[3])),
            ambient=uniform(rng, 0.4, 0.5),
        )
    return None
