"""A trainer of a tiny policy of the real class with a latent geometry model that is a formula."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from formula_lgm import LatentsAsCameras, StandsRight
from tiny_lgm import save_geometry_model

from vggrpo.backbones import load_video_backbone
from vggrpo.config import TrainSettings
from vggrpo.data import Prompt
from vggrpo.io import RunFolder
from vggrpo.rewards import SceneReward
from vggrpo.training.trainer import VGGRPOTrainer

PROMPTS = ("a red box", "a blue ball", "a green cylinder")


MakeTrainer = Callable[..., VGGRPOTrainer]


@pytest.fixture(scope="session")
def lgm_models(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models that `tiny_lgm.lgm_settings` stitches: "pipeline" and "geometry"."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "pipeline").symlink_to(tiny_pipeline)
    save_geometry_model(folder / "geometry")
    return folder


@pytest.fixture
def make_trainer(tiny_pipeline: Path, tmp_path: Path) -> MakeTrainer:
    """A trainer of `tiny_pipeline` on clips of 5 frames of 16x16, by changes to the settings below."""

    def make(
        reward: SceneReward | None = None, name: str = "run", *, resume: bool = False, **changes: object
    ) -> VGGRPOTrainer:
        values: dict[str, object] = {
            "base_model": str(tiny_pipeline),
            "geometry_model": "micro",
            "lgm_path": "lgm",
            "output": tmp_path / name,
            "resume": resume,
            "prompts": "world",
            "evaluation_prompts": "world",
            "num_frames": 5,
            "height": 16,
            "width": 16,
            "cfg_scale": 1.0,
            "lora_rank": 4,
            "lora_alpha": 8,
            "lr": 1e-2,
            "group_size": 4,
            "prompts_per_rollout": 2,
            "iterations": 4,
            "updates_per_rollout": 1,
            "train_steps": 3,
            "checkpoint_every": 2,
        }
        settings = TrainSettings.model_validate(values | changes)
        policy = load_video_backbone(settings.base_model)
        generator = torch.Generator().manual_seed(5)
        return VGGRPOTrainer(
            settings,
            RunFolder.start(settings.output, settings, resume),
            policy,
            LatentsAsCameras(policy.latent_spec),
            {"camera_motion": reward or StandsRight()},
            [Prompt(f"prompt-{i}", text) for i, text in enumerate(PROMPTS)],
            torch.randn(len(PROMPTS), 6, 16, generator=generator),
            torch.randn(6, 16, generator=generator) if settings.cfg_scale != 1.0 else None,
        )

    return make
