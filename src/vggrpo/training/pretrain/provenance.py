"""How a family's weights were made: the settings and the hours of its trainings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from vggrpo.config import (
    ConfigError,
    GeometrySettings,
    PretrainSettings,
    VAESettings,
    VideoSettings,
    load_recipe,
    read_recipe,
    recipe_names,
    validate,
)
from vggrpo.io import read_records
from vggrpo.io.runs import CONFIG_NAME, METRICS_NAME

STAGES: dict[str, type[PretrainSettings]] = {
    "train-vae": VAESettings,
    "train-video": VideoSettings,
    "train-geometry": GeometrySettings,
}
VAE_FOLDER = "runs/train-vae/model"
LOCAL = {"resume", "threads", "device"}
"""Settings that say where a training ran, not what it computed."""


@dataclass(frozen=True)
class Training:
    """One training of the family."""

    stage: str
    """"train-vae", "train-video" or "train-geometry"."""
    recipe: str
    """All settings that determine the weights, as YAML; output folders are replaced by conventional ones."""
    steps: int
    hours: float | None = None
    """Time spent in optimizer steps; None where it was not recorded."""

    @property
    def command(self) -> str:
        """The command line that repeats it."""
        return f"vggrpo world {self.stage} --recipe {self.stage}.yaml"


def trainings_of_runs(folders: Sequence[Path]) -> dict[str, Training]:
    """The trainings in some run folders, by stage.

    Raises:
        ConfigError: if a folder is no run of one of the three trainings, or two are of the same.
    """
    trainings: dict[str, Training] = {}
    for folder in folders:
        config = folder / CONFIG_NAME
        if not config.is_file():
            raise ConfigError(
                f"train_runs names {folder}, but that is no run folder: it has no {CONFIG_NAME}"
            )
        stage, settings = _recognise(config)
        if stage in trainings:
            raise ConfigError(f"train_runs names two runs of {stage}; the second is {folder}")
        trainings[stage] = _training(stage, settings, _hours(folder, settings))
    return trainings


def packaged_trainings(model: str | None) -> dict[str, Training]:
    """The trainings that the packaged recipes of a named model describe; none for a model without a name."""
    names = {stage: f"{model}/{stage}" for stage in STAGES}
    return {
        stage: _training(stage, load_recipe(name, STAGES[stage]))
        for stage, name in names.items()
        if name in recipe_names()
    }


def _recognise(config: Path) -> tuple[str, PretrainSettings]:
    """The one stage whose settings a file holds: each has fields that the others refuse."""
    file = read_recipe(config)
    fitting = [stage for stage, model in STAGES.items() if set(file.values) <= set(model.model_fields)]
    if len(fitting) != 1:
        raise ConfigError(f"{config} holds the settings of none of {', '.join(STAGES)}")
    return fitting[0], validate(STAGES[fitting[0]], file.values, str(file.path), file.lines)


def _training(stage: str, settings: PretrainSettings, hours: float | None = None) -> Training:
    values = settings.model_dump(mode="json", exclude=LOCAL)
    values["output"] = f"runs/{stage}"
    if "vae" in values:
        values["vae"] = VAE_FOLDER
    recipe = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return Training(stage, recipe, settings.loop.last_step, hours)


def _hours(folder: Path, settings: PretrainSettings) -> float | None:
    """Mean recorded time of a step, times the steps."""
    records = read_records(folder / METRICS_NAME)
    times = [record["time/step"] for record in records if record.get("time/step") is not None]
    return sum(times) / len(times) * settings.loop.last_step / 3600 if times else None
