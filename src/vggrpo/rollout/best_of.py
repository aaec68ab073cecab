"""Best-of-N: several samples of one prompt, of which the one of highest latent reward is kept.

Nothing is decoded to choose. With pruning, the worse half of the candidates is dropped on the way, by the
reward of what the model expects of them (x0_pred).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.backbones.base import VideoBackbone
from vggrpo.flow import SigmaSchedule
from vggrpo.io import derive_seed
from vggrpo.rollout.batches import OnStep
from vggrpo.rollout.condition import Condition
from vggrpo.rollout.guidance import RewardGuidance
from vggrpo.rollout.latent_reward import LatentScore
from vggrpo.rollout.noise import initial_noise
from vggrpo.rollout.solvers import SolverSettings
from vggrpo.rollout.trajectories import GuidedStep, Trajectories


@dataclass(frozen=True)
class BestOf:
    """How many candidates, ranked by what, and where half of them are dropped.

    Raises:
        ValueError: if a number is out of range, or there are more halvings than candidates to halve.
    """

    candidates: int
    reward: Callable[[Tensor], LatentScore]
    """Clean latents to their score; failed ones rank last."""
    prune_sigmas: tuple[float, ...] = ()
    """Falling noise levels. At the first step at or below each, the better half goes on (rounded up)."""

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates}, expected at least 1")
        levels = self.prune_sigmas
        if any(not 0 < level < 1 for level in levels) or list(levels) != sorted(set(levels), reverse=True):
            raise ValueError(f"prune_sigmas are {list(levels)}, expected falling levels between 1 and 0")
        if len(levels) > max(self.candidates - 1, 0).bit_length():
            raise ValueError(
                f"prune_sigmas has {len(levels)} levels, but {self.candidates} candidates can be halved "
                f"{max(self.candidates - 1, 0).bit_length()} times; give fewer levels or more candidates"
            )

    def prune_steps(self, schedule: SigmaSchedule) -> list[int]:
        """The step at which each halving happens.

        Raises:
            ValueError: if two halvings fall on one step, or one after the last step.
        """
        sigmas = schedule.sigmas[:-1].tolist()
        steps = [next((i for i, s in enumerate(sigmas) if s <= level), -1) for level in self.prune_sigmas]
        if -1 in steps or len(set(steps)) < len(steps):
            raise ValueError(
                f"prune_sigmas are {list(self.prune_sigmas)}, but of {schedule.num_steps} steps, the last of "
                f"them at {sigmas[-1]:.3g}, each needs its own; use other levels or more steps"
            )
        return steps


@dataclass(frozen=True, eq=False)
class BestSample:
    """The candidate that was kept."""

    latents: Tensor
    """[C, T_lat, H_lat, W_lat], float32."""
    candidate: int
    """Its number, from 0."""
    seed: int
    """Of its noise: the sample alone, without any choice, comes from it."""
    value: float
    """Its reward; NaN if all candidates failed, of which the first was kept."""
    values: dict[int, float]
    """The rewards of all candidates that were sampled to the end, by number."""
    evaluations: int
    """Forward passes of the denoiser for all candidates together."""
    guided: list[GuidedStep]
    """Its guided steps."""


def candidate_seeds(seed: int, count: int) -> list[int]:
    """The seeds of the candidates for a sample with `seed`; the first one's is `seed` itself."""
    return [seed, *(derive_seed(seed, "candidate", number) for number in range(1, count))]


@torch.no_grad()
def sample_best(
    policy: VideoBackbone,
    condition: Condition,
    schedule: SigmaSchedule,
    choice: BestOf,
    *,
    seed: int,
    latent_shape: tuple[int, ...],
    solver: SolverSettings | None = None,
    guidance: RewardGuidance | None = None,
    micro_batch: int | None = None,
    on_step: OnStep | None = None,
) -> BestSample:
    """Samples the candidates of one prompt and seed and keeps the best.

    Args:
        policy: the model whose velocity drives the samples.
        condition: one prompt, [L, D], and its classifier-free guidance.
        schedule: steps of decreasing noise, ending in 0.
        choice: how many candidates, ranked by what.
        seed: of the first candidate; it determines the others.
        latent_shape: (C, T_lat, H_lat, W_lat).
        solver: Euler by default.
        guidance: of every candidate.
        micro_batch: candidates that the models see at once; all by default.
        on_step: progress callback.

    Raises:
        ValueError: if the prune levels do not fit the schedule.
        FloatingPointError: if the policy's velocity is not finite.
    """
    prune_steps = choice.prune_steps(schedule)
    seeds = candidate_seeds(seed, choice.candidates)
    trajectories = Trajectories(
        policy,
        condition,
        (solver or SolverSettings()).start(schedule, seeds),
        initial_noise(seeds, latent_shape).to(condition.device),
        guidance=guidance,
        micro_batch=micro_batch,
    )
    numbers, spent = torch.arange(choice.candidates), 0
    while not trajectories.done:
        trajectories.evaluate()
        if trajectories.index in prune_steps:
            values = _scores(choice.reward, trajectories.x0_pred, micro_batch)
            kept = _best(values, (len(values) + 1) // 2)
            spent += int(trajectories.evaluations.sum() - trajectories.evaluations[kept].sum())
            trajectories.keep(kept.to(condition.device))
            numbers = numbers[kept]
        trajectories.advance()
        if on_step is not None:
            on_step(trajectories.index, schedule.num_steps)
    spent += int(trajectories.evaluations.sum())
    values = _scores(choice.reward, trajectories.x, micro_batch)
    winner = _best(values, 1)
    trajectories.keep(winner.to(condition.device))
    number = int(numbers[winner])
    return BestSample(
        latents=trajectories.x[0],
        candidate=number,
        seed=seeds[number],
        value=float(values[winner]),
        values=dict(zip(numbers.tolist(), values.tolist(), strict=True)),
        evaluations=spent,
        guided=trajectories.guided,
    )


def _scores(reward: Callable[[Tensor], LatentScore], latents: Tensor, micro_batch: int | None) -> Tensor:
    """[B] on the CPU."""
    parts = latents.split(micro_batch or len(latents))
    return torch.cat([reward(part).value.detach().float().cpu() for part in parts])


def _best(values: Tensor, count: int) -> Tensor:
    """Numbers of the `count` greatest values, in their order; failed ones come last, and of equals the first
    wins.
    """
    order = torch.where(values.isnan(), -torch.inf, values).argsort(descending=True, stable=True)
    return order[:count].sort().values
