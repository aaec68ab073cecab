"""Rollouts: a prompt to denoising trajectories, scoring their steps again, and guidance towards a reward."""

from vggrpo.rollout.best_of import BestOf, BestSample, candidate_seeds, sample_best
from vggrpo.rollout.condition import Condition, NonFiniteError
from vggrpo.rollout.guidance import Correction, RewardGuidance
from vggrpo.rollout.latent_reward import LatentReward, LatentScore
from vggrpo.rollout.noise import initial_noise, step_generators
from vggrpo.rollout.ode import sample_ode
from vggrpo.rollout.off_window import off_window_distance
from vggrpo.rollout.rescore import RescoredStep, rescore, shares_state
from vggrpo.rollout.sampler import sample_group
from vggrpo.rollout.sde import sample_sde
from vggrpo.rollout.solvers import SolverSettings
from vggrpo.rollout.steps import OdeSolver, RolloutSteps
from vggrpo.rollout.storage import Rows, StoredRows
from vggrpo.rollout.trajectories import GuidedStep, Trajectories
from vggrpo.rollout.types import RolloutGroup

__all__ = [
    "BestOf",
    "BestSample",
    "Condition",
    "Correction",
    "GuidedStep",
    "LatentReward",
    "LatentScore",
    "NonFiniteError",
    "OdeSolver",
    "RescoredStep",
    "RewardGuidance",
    "RolloutGroup",
    "RolloutSteps",
    "Rows",
    "SolverSettings",
    "StoredRows",
    "Trajectories",
    "candidate_seeds",
    "initial_noise",
    "off_window_distance",
    "rescore",
    "sample_best",
    "sample_group",
    "sample_ode",
    "sample_sde",
    "shares_state",
    "step_generators",
]
