"""Runs of the micro family's recipes with changes, each done once and continued if it was interrupted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from unittest.mock import patch

from harness.options import Options
from vggrpo.backbones import load_video_backbone
from vggrpo.config import (
    LGMSettings,
    RunSettings,
    TrainSettings,
    TuneNoiseSettings,
    load_recipe,
    resolve_model,
)
from vggrpo.config.lgm_path import lgm_folder
from vggrpo.evaluation import LGMGate
from vggrpo.io import RunFolder, file_sha256, read_json
from vggrpo.io.runs import CONFIG_NAME
from vggrpo.training.align import align
from vggrpo.training.demo.stages import Stages
from vggrpo.training.lgm import LAYER_SEARCH, MODEL_FOLDER, QUALITY_FILE, train_lgm
from vggrpo.training.trainer import LORA_FOLDER, VGGRPOTrainer
from vggrpo.training.tune_noise import check_inputs
from vggrpo.training.watch import ALARMS_FILE

FAMILY = "micro"
RECIPE = "recipe"
"""Name of the runs that change nothing in the recipe."""
SettingsT = TypeVar("SettingsT", bound=RunSettings)
Changes = Mapping[str, Any]
"""Settings in place of the recipe's, by dotted path."""

QUICK: dict[type[RunSettings], dict[str, Any]] = {
    LGMSettings: {
        "fit_clips": 4,
        "held_out_clips": 2,
        "downstream_clips": 0,
        "batch_size": 2,
        "num_prompts": 3,
        "real_clips": 2,
        "generated_clips": 2,
        "infer_steps": 2,
        "epochs": 2,
        "warmup_steps": 1,
        "lora_rank": 2,
        "gate_clips": 6,
        "noise_clips": 0,
    },
    TrainSettings: {
        "lgm_floor": 0,
        "num_prompts": 2,
        "num_evaluation_prompts": 2,
        "group_size": 4,
        "prompts_per_rollout": 1,
        "iterations": 2,
        "train_steps": 3,
        "infer_steps": 2,
        "lora_rank": 4,
        "sde_window_start": 0,
        "sde_window_stop": None,
        "sde_window_moves": "never",
        "sde_window_length": 1,
        "rollout_batch": 2,
        "update_batch": 2,
        "eval_every": 1,
    },
    TuneNoiseSettings: {
        "num_prompts": 3,
        "noise_scales": [0.3, 0.7],
        "sde_window_lengths": [1],
        "train_steps": 3,
        "group_size": 2,
        "rollout_batch": 2,
    },
}
"""What `--quick` changes in the recipes."""


@dataclass(frozen=True)
class FinishedRun(Generic[SettingsT]):
    """A run that is done."""

    name: str
    settings: SettingsT
    seconds: float
    """How long it took, over all its attempts."""

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.settings.output


@dataclass(frozen=True)
class LGMRun(FinishedRun[LGMSettings]):
    """A trained latent geometry model."""

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.path / MODEL_FOLDER

    @property
    def gate(self) -> LGMGate:
        """What was measured on it."""
        return LGMGate.load(self.path)

    @property
    def stitch_point(self) -> str:
        """Where the geometry model is entered."""
        return str(read_json(self.path / f"{LAYER_SEARCH}.json")["recommended"])


@dataclass(frozen=True)
class PolicyRun(FinishedRun[TrainSettings]):
    """A trained policy."""

    @property
    def lora(self) -> Path:
        """Folder of its LoRA."""
        return self.path / LORA_FOLDER

    @property
    def alarms(self) -> list[dict[str, Any]]:
        """The alarms of all its evaluations: iteration, name, sentence, values."""
        alarms: list[dict[str, Any]] = read_json(self.path / ALARMS_FILE)
        return alarms


class Workspace:
    """The folder of all benchmark runs, which starts those that are missing.

    Raises:
        RunError: if the folder's runs are of other weights of the family.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.root = options, options.runs
        check_inputs(self.root, family_identity())

    def settings(
        self, model: type[SettingsT], stage: str, name: str, seed: int, changes: Changes
    ) -> SettingsT:
        """The recipe of a stage with `changes`, to run in `<root>/<stage>/<name>/seed_<seed>`."""
        quick = QUICK[model] if self.options.quick else {}
        own = {
            "output": self.root / stage / name / f"seed_{seed}",
            "seed": seed,
            "threads": self.options.threads,
        }
        return load_recipe(f"{FAMILY}/{stage}", model, {**quick, **changes, **own})

    def train_lgm(self, name: str = RECIPE, seed: int = 0, changes: Changes | None = None) -> LGMRun:
        """A latent geometry model. Those of one seed share their clips."""
        clips = {"clip_cache": self.root / "clips" / f"seed_{seed}"}
        settings = self.settings(LGMSettings, "train-lgm", name, seed, {**(changes or {}), **clips})
        seconds = self._once(settings, QUALITY_FILE, train_lgm)
        return LGMRun(f"{name}-seed_{seed}", settings, seconds)

    def lgm(self) -> Path:
        """Folder of the latent geometry model for the policies."""
        return lgm_folder(self.options.lgm)

    def policy_settings(
        self, lgm: Path, name: str = RECIPE, seed: int = 0, changes: Changes | None = None
    ) -> TrainSettings:
        """Of the training of a policy."""
        return self.settings(TrainSettings, "train", name, seed, {**(changes or {}), "lgm_path": lgm})

    def train_policy(
        self,
        lgm: Path,
        name: str = RECIPE,
        seed: int = 0,
        changes: Changes | None = None,
        trainer: type[VGGRPOTrainer] = VGGRPOTrainer,
    ) -> PolicyRun:
        """A policy, trained by `trainer`, which a control may replace."""
        settings = self.policy_settings(lgm, name, seed, changes)

        def work(settings: TrainSettings) -> object:
            with patch("vggrpo.training.align.VGGRPOTrainer", trainer):
                return align(settings)

        return PolicyRun(f"{name}-seed_{seed}", settings, self._once(settings, LORA_FOLDER, work))

    def _once(self, settings: SettingsT, product: str, work: Callable[[SettingsT], object]) -> float:
        """Does the run unless its product exists; the seconds that it took in all.

        Raises:
            RunError: if it was made, or begun, with other settings.
        """
        name = settings.output.relative_to(self.root).as_posix()
        stages = Stages(self.root / "seconds" / f"{name.replace('/', '-')}.json")
        if (settings.output / product).exists():
            RunFolder.open(settings.output, settings)
        else:
            print(f"run {settings.output}", flush=True)
        stages.run(name, settings.output / product, lambda: work(resumed(settings)))
        return stages.seconds[name]


def resumed(settings: SettingsT) -> SettingsT:
    """The same settings, set to resume if the run was begun before."""
    return settings.model_copy(update={"resume": (settings.output / CONFIG_NAME).exists()})


def family_identity() -> dict[str, Any]:
    """Fingerprints of the family's weights."""
    geometry = resolve_model(FAMILY, "geometry").folder
    files = sorted(geometry.glob("*.safetensors")) if geometry is not None else []
    return {
        "base_model": load_video_backbone(FAMILY).identity(),
        "geometry_model": {file.name: file_sha256(file) for file in files},
    }
