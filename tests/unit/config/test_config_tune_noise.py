from typing import Any

import pytest

from vggrpo.config import ODE, ConfigError, NoiseCell, TrainSettings, TuneNoiseSettings, load_recipe, validate

VALUES = {
    "output": "runs/a",
    "base_model": "micro",
    "lgm_path": "runs/lgm",
    "prompts": "world",
    "noise_scales": [0.5, 1.0],
    "cfg_scale": 1,
    "num_frames": 17,
    "height": 48,
    "width": 64,
}


def tune(**changes: Any) -> TuneNoiseSettings:
    return validate(TuneNoiseSettings, {**VALUES, **changes}, "a test")


def test_the_grid_is_every_kind_with_every_window_and_scale() -> None:
    cells = tune(
        transitions=["flow_sde", "cps"], sde_window_starts=[0, 2], sde_window_lengths=[3, "all"]
    ).cells
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2
    windows = {(cell.start, cell.length) for cell in cells}
    assert windows == {(0, 3), (0, 9), (2, 3), (2, 7)}
    assert {cell.noise_scale for cell in cells} == {0.5, 1.0}


def test_names_of_cells_differ_even_for_close_scales() -> None:
    cells = tune(noise_scales=[0.7, 0.70000001]).cells
    assert len({cell.name for cell in cells}) == 2
    assert NoiseCell("cps", 0.5, 2, 3).name == "cps-0.5-2+3"
    assert ODE.name == "ode"


def test_a_cells_flags_are_settings_of_train() -> None:
    from vggrpo.cli.recipes import parse_with_recipe

    cell = NoiseCell("dance_sde", 0.25, 1, 4)
    settings = parse_with_recipe(TrainSettings, "train", ["--recipe", "micro/train", *cell.flags.split()])
    assert (settings.transition, settings.noise_scale) == ("dance_sde", 0.25)
    assert settings.sde_window == settings.trained_steps == range(1, 5)
    assert (settings.ode_solver, settings.ode_stride) == ("euler", 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sde_window_lengths": [10]}, r"steps \[0, 10\), but of 10 train_steps only \[0, 9\)"),
        ({"sde_window_starts": [0, 9]}, r"steps \[9, 9\)"),
        ({"sde_window_starts": [12]}, r"steps \[12, 9\)"),
        ({"noise_scales": [0.5, 1.5], "transitions": ["cps"]}, "noise_scales hold 1.5, but that of cps"),
        ({"noise_scales": [0.5, 0.5]}, r"the grid holds flow_sde-0.5-0\+9 twice"),
        ({"sde_window_lengths": ["all", 9]}, r"the grid holds flow_sde-0.5-0\+9 twice"),
        ({"noise_scales": []}, "noise_scales: "),
        ({"noise_scales": [0.0]}, "noise_scales"),
        ({"num_prompts": 2}, "num_prompts: is 2; should be greater than or equal to 3"),
        ({"transitions": ["sde"]}, "transitions"),
        ({"reward_weights": {"camera_motion": 0, "reprojection": 0}}, "reward_weights are all 0"),
    ],
)
def test_impossible_grids(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(**changes)


@pytest.mark.parametrize("family", ["micro", "wan2.1-1.3b", "wan2.2-5b"])
def test_a_recipe_measures_the_rollouts_of_the_training(family: str) -> None:
    ours, train = (
        load_recipe(f"{family}/{stage}", model)
        for stage, model in (("tune-noise", TuneNoiseSettings), ("train", TrainSettings))
    )
    shared = ("base_model", "lgm_path", "prompts", "negative_prompt", "num_frames", "height", "width")
    shared += ("cfg_scale", "train_steps", "shared_noise", "rollout_batch", "precision", "weights")
    shared += ("reward_weights", "rewards", "fps")
    for name in shared:
        assert getattr(ours, name) == getattr(train, name), name
    window = train.sde_window
    trained = NoiseCell(train.transition, train.noise_scale, window.start, len(window))
    assert trained in ours.cells, f"the grid of {family}/tune-noise lacks the noise of {family}/train"
