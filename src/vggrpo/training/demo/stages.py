"""The demo's stages, each an ordinary run in its own folder, done once."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vggrpo.config import (
    ConfigError,
    DemoSettings,
    FindLayerSettings,
    LGMSettings,
    RunSettings,
    TrainSettings,
)
from vggrpo.config.recipes import load_recipe
from vggrpo.io import RunFolder, read_json, write_json
from vggrpo.io.runs import CONFIG_NAME
from vggrpo.training.align import align
from vggrpo.training.demo.report import DemoRuns, write_demo_report
from vggrpo.training.lgm import LAYER_SEARCH, MODEL_FOLDER, QUALITY_FILE, search_layer, train_lgm
from vggrpo.training.trainer import LORA_FOLDER

STAGES_FILE = "stages.json"
RunSettingsT = TypeVar("RunSettingsT", bound=RunSettings)


def run_demo(settings: DemoSettings, command: str) -> Path:
    """Runs what is not done yet and returns the path of the report.

    Args:
        settings: of the demo.
        command: the command line, for the report.

    Raises:
        ConfigError: if a recipe is wrong, or the recipes do not name the same models.
        RunError: if the folder holds a demo already and `resume` is off.
    """
    recipes = load_recipes(settings)
    run = RunFolder.start(settings.output, settings, resume=settings.resume)
    output = run.path
    stages = Stages(output / STAGES_FILE)

    search = recipes.find_layer
    stages.run("layer search", search.output / f"{LAYER_SEARCH}.json", lambda: search_layer(_resumed(search)))

    point = read_json(search.output / f"{LAYER_SEARCH}.json")["recommended"]
    lgm = recipes.train_lgm
    if lgm.init is None:  # a model that is trained on keeps its own
        lgm = lgm.model_copy(update={"stitch_point": point})
    stages.run("latent geometry model", lgm.output / QUALITY_FILE, lambda: train_lgm(_resumed(lgm)))

    train = recipes.train
    stages.run("VGGRPO", train.output / LORA_FOLDER, lambda: align(_resumed(train)))

    report = output / "report.html"
    stages.run(
        "report",
        report,
        lambda: write_demo_report(DemoRuns(search, lgm, train), stages.seconds, command, report),
    )
    return report


class Stages:
    """What is done, and how long each stage took over all its attempts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.seconds: dict[str, float] = read_json(file) if file.exists() else {}

    def run(self, name: str, product: Path, work: Callable[[], object]) -> None:
        """Does `work` unless its `product` exists, and notes the time, also of an attempt that was
        interrupted.
        """
        if product.exists():
            return
        began = time.monotonic()
        try:
            work()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
            write_json(self._file, self.seconds)


def load_recipes(settings: DemoSettings) -> DemoRuns:
    """The three recipes with the demo's folders, seed and threads.

    Raises:
        ConfigError: if a recipe is wrong, or the recipes do not name the same models.
    """
    output = settings.output
    common = {"seed": settings.seed, "threads": settings.threads}
    clips = {"clip_cache": output / "clips"}
    search = load_recipe(settings.find_layer, FindLayerSettings)
    lgm = load_recipe(settings.train_lgm, LGMSettings)
    train = load_recipe(settings.train, TrainSettings)
    for name in ("base_model", "geometry_model", "num_frames", "height", "width"):
        values = [getattr(recipe, name) for recipe in (search, lgm, train)]
        if len(set(values)) > 1:
            raise ConfigError(f"the demo's recipes differ in {name}: {', '.join(map(str, values))}")
    return DemoRuns(
        search.model_copy(update=common | clips | {"output": output / "find-layer"}),
        lgm.model_copy(update=common | clips | {"output": output / "lgm"}),
        train.model_copy(
            update=common | {"output": output / "train", "lgm_path": output / "lgm" / MODEL_FOLDER}
        ),
    )


def _resumed(settings: RunSettingsT) -> RunSettingsT:
    """The same settings, set to resume if the stage was started before."""
    return settings.model_copy(update={"resume": (settings.output / CONFIG_NAME).exists()})
