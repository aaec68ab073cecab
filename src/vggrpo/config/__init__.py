"""Settings of every command, recipe files, model names, and the errors that a person can act on. No torch."""

from vggrpo.config.alarms import AlarmSettings
from vggrpo.config.base import ModelRunSettings, RunSettings, Settings
from vggrpo.config.demo import DemoSettings
from vggrpo.config.errors import (
    AlarmError,
    ConfigError,
    CorruptFileError,
    DiskFullError,
    RunError,
    VggrpoError,
)
from vggrpo.config.generate import GenerateSettings
from vggrpo.config.lgm import DistillationWeights, FindLayerSettings, LGMSettings, StitchSettings
from vggrpo.config.models import ModelSource, canonical_name, model_names, resolve_model
from vggrpo.config.pretrain import (
    ClipSettings,
    GeometryArchitecture,
    GeometrySettings,
    LoopSettings,
    PretrainSettings,
    TransformerArchitecture,
    VAEArchitecture,
    VAESettings,
    VideoSettings,
)
from vggrpo.config.recipes import load_recipe, read_recipe, recipe_names, recipe_path
from vggrpo.config.rewards import CameraMotionOptions, ReprojectionOptions, RewardSettings, RewardWeights
from vggrpo.config.train import TrainSettings
from vggrpo.config.tune_noise import ODE, NoiseCell, TuneNoiseSettings
from vggrpo.config.validation import validate
from vggrpo.config.world_evaluate import WorldEvaluateSettings

__all__ = [
    "ODE",
    "AlarmError",
    "AlarmSettings",
    "CameraMotionOptions",
    "ClipSettings",
    "ConfigError",
    "CorruptFileError",
    "DemoSettings",
    "DiskFullError",
    "DistillationWeights",
    "FindLayerSettings",
    "GenerateSettings",
    "GeometryArchitecture",
    "GeometrySettings",
    "LGMSettings",
    "LoopSettings",
    "ModelRunSettings",
    "ModelSource",
    "NoiseCell",
    "PretrainSettings",
    "ReprojectionOptions",
    "RewardSettings",
    "RewardWeights",
    "RunError",
    "RunSettings",
    "Settings",
    "StitchSettings",
    "TrainSettings",
    "TransformerArchitecture",
    "TuneNoiseSettings",
    "VAEArchitecture",
    "VAESettings",
    "VggrpoError",
    "VideoSettings",
    "WorldEvaluateSettings",
    "canonical_name",
    "load_recipe",
    "model_names",
    "read_recipe",
    "recipe_names",
    "recipe_path",
    "resolve_model",
    "validate",
]
