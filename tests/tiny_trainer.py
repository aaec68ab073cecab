"""A trainer of a tiny policy of the real class with a latent geometry model that is a formula."""

from pathlib import Path

import torch

from formula_lgm import LatentsAsCameras, StandsRight
from vggrpo.backbones import load_video_backbone
from vggrpo.config import TrainSettings
from vggrpo.data import Prompt
from vggrpo.io import RunFolder
from vggrpo.rewards import SceneReward
from vggrpo.training.ranks import Ranks
from vggrpo.training.trainer import VGGRPOTrainer

PROMPTS = ("a red box", "a blue ball", "a green cylinder")


def tiny_trainer(
    pipeline: Path,
    output: Path,
    reward: SceneReward | None = None,
    resume: bool = False,
    ranks: Ranks | None = None,
    **changes: object,
) -> VGGRPOTrainer:
    """Of clips of 5 frames of 16x16, by changes to the settings below."""
    values: dict[str, object] = {
        "base_model": str(pipeline),
        "geometry_model": "micro",
        "lgm_path": "lgm",
        "output": output,
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
    ranks = ranks or Ranks()
    settings = TrainSettings.model_validate(values | changes)
    run = RunFolder(output, settings)
    if ranks.is_first:
        run = RunFolder.start(output, settings, resume)
    ranks.wait()  # the others' rollouts go into the folder
    policy = load_video_backbone(settings.base_model, efficiency=settings.efficiency)
    generator = torch.Generator().manual_seed(5)
    return VGGRPOTrainer(
        settings,
        run,
        policy,
        LatentsAsCameras(policy.latent_spec),
        {"camera_motion": reward or StandsRight()},
        [Prompt(f"prompt-{i}", text) for i, text in enumerate(PROMPTS)],
        torch.randn(len(PROMPTS), 6, 16, generator=generator),
        torch.randn(6, 16, generator=generator) if settings.cfg_scale != 1.0 else None,
        ranks,
    )
