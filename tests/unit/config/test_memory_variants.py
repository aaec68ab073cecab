"""Recipes for a GPU's memory: they differ from their bases in memory and parallel work alone, and fit."""

import re
from typing import Any

import pytest

from vggrpo.config import (
    LGMSettings,
    Settings,
    TrainSettings,
    load_recipe,
    read_recipe,
    recipe_names,
    recipe_path,
)

MEMORY = {
    "rollout_batch",
    "update_batch",
    "micro_batch",
    "gradient_checkpointing",
    "trajectory_storage",
    "parallel",
    "context_parallel",
    "efficiency.offload",
    "efficiency.offload_activations",
    "efficiency.tiled_decoding",
}
"""Settings that change what a GPU holds at once or shares with others, and results by rounding at most, but
for the seams of tiles in decoded videos."""
SUFFIX = re.compile(r"-(?:(\d+)x)?(\d+)gb$")
VARIANTS = [name for name in recipe_names() if SUFFIX.search(name)]
STAGES = ("train", "train-vggt", "train-lgm", "train-lgm-vggt")
FAMILIES = ("wan2.1-1.3b", "wan2.2-5b")


def load(name: str) -> LGMSettings | TrainSettings:
    model: type[Any] = LGMSettings if "/train-lgm" in name else TrainSettings
    return load_recipe(name, model)


def differences(one: Any, other: Any, place: str = "") -> set[str]:
    """Dotted names of the settings in which two settings objects differ."""
    found = set()
    for name, value in one:
        if isinstance(value, Settings):
            found |= differences(value, getattr(other, name), f"{place}{name}.")
        elif value != getattr(other, name):
            found.add(place + name)
    return found


def test_every_wan_stage_has_its_variants() -> None:
    one_gpu = {f"{family}/{stage}-{gb}gb" for family in FAMILIES for stage in STAGES for gb in (24, 80)}
    eight = {f"{family}/{stage}-8x80gb" for family in FAMILIES for stage in STAGES[:2]}
    assert set(VARIANTS) == one_gpu | eight


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_differ_in_memory_and_parallel_work_alone(name: str) -> None:
    base = SUFFIX.sub("", name)
    assert differences(load(base), load(name)) <= MEMORY
    assert f"extends: {base}\n" in recipe_path(name).read_text("utf-8")
    for line in recipe_path(name).read_text("utf-8").splitlines():
        assert re.match(r" *\w+: +\S", line) is None or "# [ours]" in line or "extends" in line, line


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("memory", ["24gb", "80gb", "8x80gb"])
def test_the_geometry_model_changes_nothing_of_a_variant(family: str, memory: str) -> None:
    def own(stage: str) -> dict[str, Any]:
        variant, base = (read_recipe(f"{family}/{stage}{suffix}").values for suffix in (f"-{memory}", ""))
        return {name: value for name, value in variant.items() if base.get(name) != value}

    for stage in ("train",) if memory == "8x80gb" else ("train", "train-lgm"):
        assert own(stage) == own(f"{stage}-vggt")


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_the_plan_of_a_variant_fits_its_memory(name: str) -> None:
    from vggrpo.training.plan import Assumptions, plan_lgm, plan_training

    found = SUFFIX.search(name)
    assert found is not None
    gpus, memory = int(found[1] or 1), float(found[2])
    settings = load(name)
    if isinstance(settings, TrainSettings):
        plan = plan_training(settings, Assumptions(300.0, memory, gpus))
    else:
        plan = plan_lgm(settings, Assumptions(300.0, memory))
    assert plan.problems == []
