"""Settings of every command, recipe files, model names, and the errors that a person can act on. No torch."""

from vggrpo.config.alarms import AlarmSettings
from vggrpo.config.base import (
    EfficiencySettings,
    ModelRunSettings,
    RunSettings,
    SamplingRunSettings,
    Settings,
)
from vggrpo.config.compare import CompareSettings
from vggrpo.config.demo import DemoSettings
from vggrpo.config.errors import (
    AlarmError,
    ConfigError,
    CorruptFileError,
    DiskFullError,
    RunError,
    VggrpoError,
)
from vggrpo.config.evaluate import EvaluateSettings
from vggrpo.config.evaluate_geometry import EvaluateGeometrySettings
from vggrpo.config.fuse import FuseSettings
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
from vggrpo.config.reconstruct import ReconstructSettings
from vggrpo.config.rewards import CameraMotionOptions, ReprojectionOptions, RewardSettings, RewardWeights
from vggrpo.config.score import ScoreSettings
from vggrpo.config.train import TrainSettings
from vggrpo.config.tune_noise import ODE, NoiseCell, TuneNoiseSettings
from vggrpo.config.validation import validate
from vggrpo.config.view import ViewSettings
from vggrpo.config.world_evaluate import WorldEvaluateSettings

__all__ = [
    "ODE",
    "AlarmError",
    "AlarmSettings",
    "CameraMotionOptions",
    "ClipSettings",
    "CompareSettings",
    "ConfigError",
    "CorruptFileError",
    "DemoSettings",
    "DiskFullError",
    "DistillationWeights",
    "EfficiencySettings",
    "EvaluateGeometrySettings",
    "EvaluateSettings",
    "FindLayerSettings",
    "FuseSettings",
    "GenerateSettings",
    "GeometryArchitecture",
    "GeometrySettings",
    "LGMSettings",
    "LoopSettings",
    "ModelRunSettings",
    "ModelSource",
    "NoiseCell",
    "PretrainSettings",
    "ReconstructSettings",
    "ReprojectionOptions",
    "RewardSettings",
    "RewardWeights",
    "RunError",
    "RunSettings",
    "SamplingRunSettings",
    "ScoreSettings",
    "Settings",
    "StitchSettings",
    "TrainSettings",
    "TransformerArchitecture",
    "TuneNoiseSettings",
    "VAEArchitecture",
    "VAESettings",
    "VggrpoError",
    "VideoSettings",
    "ViewSettings",
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
