"""Thresholds of the alarms: stated in every recipe, checked, and compared when a run is resumed."""

import pytest
import yaml

from vggrpo.config import AlarmSettings, ConfigError, TrainSettings, load_recipe, read_recipe
from vggrpo.io import settings_to_yaml
from vggrpo.io.runs import settings_differences

RECIPES = ("micro/train", "wan2.1-1.3b/train", "wan2.2-5b/train")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_threshold_is_stated(recipe: str) -> None:
    values = read_recipe(recipe).values
    assert values["alarms"].keys() == AlarmSettings.model_fields.keys()
    assert "stop_on_alarm" in values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alarms.motion_flor": 0.5}, "alarms.motion_flor: unknown setting; did you mean motion_floor?"),
        ({"alarms.motion_floor": 1.0}, "alarms.motion_floor: is 1.0"),
        ({"alarms.evaluations": 0}, "alarms.evaluations: is 0"),
        ({"alarms.least_prompts": 1}, "alarms.least_prompts: is 1"),
        ({"alarms.kl_growth": 1.0}, "alarms.kl_growth: is 1.0"),
    ],
)
def test_wrong_thresholds_are_named(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        load_recipe("micro/train", TrainSettings, changes)


def test_a_run_may_be_resumed_with_or_without_stopping_but_not_with_other_thresholds() -> None:
    stored = yaml.safe_load(settings_to_yaml(load_recipe("micro/train", TrainSettings)))
    stopping = load_recipe("micro/train", TrainSettings, {"stop_on_alarm": True})
    assert settings_differences(stored, stopping) == []
    other = load_recipe("micro/train", TrainSettings, {"alarms.pixel_band": 0.1})
    assert settings_differences(stored, other) == ["alarms.pixel_band: 0.05 in the run, 0.1 now"]
