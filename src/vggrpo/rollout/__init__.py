"""Rollouts: a prompt to a group of denoising trajectories, and scoring their steps again."""

from vggrpo.rollout.condition import Condition
from vggrpo.rollout.noise import initial_noise, step_generators
from vggrpo.rollout.ode import sample_ode
from vggrpo.rollout.rescore import RescoredStep, rescore
from vggrpo.rollout.sampler import sample_group
from vggrpo.rollout.sde import sample_sde
from vggrpo.rollout.types import RolloutGroup

__all__ = [
    "Condition",
    "RescoredStep",
    "RolloutGroup",
    "initial_noise",
    "rescore",
    "sample_group",
    "sample_ode",
    "sample_sde",
    "step_generators",
]
