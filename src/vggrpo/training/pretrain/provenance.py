"""How a family's weights were made: the settings and the hours of its trainings."""

from collections.abc import Container, Sequence
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
FINISH = "-finish"
"""Ends the name of a training that started from the model of an earlier one of its stage."""
LOCAL = {"resume", "threads", "device"}
"""Settings that say where a training ran, not what it computed."""


@dataclass(frozen=True)
class Training:
    """One training of the family."""

    stage: str
    """"train-vae", "train-video" or "train-geometry"."""
    name: str
    """Of its recipe: the stage, or the stage and `FINISH`."""
    recipe: str
    """All settings that determine the weights, as YAML; output folders are replaced by conventional ones."""
    steps: int
    hours: float | None = None
    """Time spent in optimizer steps; None where it was not recorded."""

    @property
    def command(self) -> str:
        """The command line that repeats it."""
        return f"vggrpo world {self.stage} --recipe {self.name}.yaml"


def trainings_of_runs(folders: Sequence[Path]) -> dict[str, Training]:
    """The trainings in some run folders, by name.

    Raises:
        ConfigError: if a folder is no run of one of the three trainings, or two have the same name.
    """
    runs: dict[str, tuple[str, PretrainSettings, Path]] = {}
    for folder in folders:
        config = folder / CONFIG_NAME
        if not config.is_file():
            raise ConfigError(
                f"train_runs names {folder}, but that is no run folder: it has no {CONFIG_NAME}"
            )
        stage, settings = _recognise(config)
        name = stage if settings.init is None else stage + FINISH
        if name in runs:
            raise ConfigError(f"train_runs names two runs of {name}; the second is {folder}")
        runs[name] = (stage, settings, folder)
    return {
        name: _training(stage, name, settings, runs, _hours(folder, settings))
        for name, (stage, settings, folder) in runs.items()
    }


def packaged_trainings(model: str | None) -> dict[str, Training]:
    """The trainings that the packaged recipes of a named model describe; none for a model without a name."""
    found = {
        stage + end: load_recipe(f"{model}/{stage}{end}", STAGES[stage])
        for stage in STAGES
        for end in ("", FINISH)
        if f"{model}/{stage}{end}" in recipe_names()
    }
    return {
        name: _training(name.removesuffix(FINISH), name, settings, found) for name, settings in found.items()
    }


def _recognise(config: Path) -> tuple[str, PretrainSettings]:
    """The one stage whose settings a file holds: each has fields that the others refuse."""
    file = read_recipe(config)
    fitting = [stage for stage, model in STAGES.items() if set(file.values) <= set(model.model_fields)]
    if len(fitting) != 1:
        raise ConfigError(f"{config} holds the settings of none of {', '.join(STAGES)}")
    return fitting[0], validate(STAGES[fitting[0]], file.values, str(file.path), file.lines)


def _training(
    stage: str,
    name: str,
    settings: PretrainSettings,
    names: Container[str],
    hours: float | None = None,
) -> Training:
    """One training among those called `names`, with its folders by their conventional names."""
    values = settings.model_dump(mode="json", exclude=LOCAL)
    values["output"] = f"runs/{name}"
    if settings.init is not None:
        values["init"] = f"runs/{stage}/model"
    if "vae" in values:
        values["vae"] = f"runs/train-vae{FINISH if 'train-vae' + FINISH in names else ''}/model"
    recipe = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return Training(stage, name, recipe, settings.loop.last_step, hours)


def _hours(folder: Path, settings: PretrainSettings) -> float | None:
    """Mean recorded time of a step, times the steps."""
    records = read_records(folder / METRICS_NAME)
    times = [record["time/step"] for record in records if record.get("time/step") is not None]
    return sum(times) / len(times) * settings.loop.last_step / 3600 if times else None
