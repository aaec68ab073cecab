"""A batch of trajectories on their way from noise to clean latents, one step at a time."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from vggrpo.backbones.base import VideoBackbone
from vggrpo.flow import SigmaSchedule, predict_x0
from vggrpo.rollout.condition import Condition
from vggrpo.rollout.guidance import RewardGuidance
from vggrpo.rollout.solvers import Solver


@dataclass(frozen=True, eq=False)
class GuidedStep:
    """What guidance did to B samples at one step."""

    index: int
    sigma: float
    value: Tensor
    """[B]: the reward of x0_pred before the step; NaN where a reward failed."""
    ratio: Tensor
    """[B]: the length of the correction over that of the velocity, before the cap."""


class Trajectories:
    """B samples at one noise level.

    A step is `evaluate`, which asks the model for the velocity, and `advance`, which takes the step. Between
    the two, `x0_pred` is what the model expects of each sample, and `keep` drops samples.

    Args:
        policy: the model whose velocity drives the samples.
        condition: prompts and classifier-free guidance, shared or one per sample.
        solver: made for the schedule and these samples.
        noises: the states to start from, [B, C, T_lat, H_lat, W_lat] on the condition's device.
        guidance: towards a reward.
        micro_batch: samples that the model sees at once; all by default.
    """

    def __init__(
        self,
        policy: VideoBackbone,
        condition: Condition,
        solver: Solver,
        noises: Tensor,
        *,
        guidance: RewardGuidance | None = None,
        micro_batch: int | None = None,
    ) -> None:
        self._policy, self._condition = policy, condition
        self._solver, self._guidance, self._micro_batch = solver, guidance, micro_batch
        self.x, self.index = noises, 0
        """The states [B, ...], float32, and how many steps they have behind them."""
        self.evaluations = torch.zeros(len(noises), dtype=torch.int64)
        """[B]: forward passes of the denoiser for each sample; classifier-free guidance costs two."""
        self.guided: list[GuidedStep] = []
        """The guided steps so far."""
        self._velocity: Tensor | None = None

    @property
    def schedule(self) -> SigmaSchedule:
        """The noise levels."""
        return self._solver.schedule

    @property
    def done(self) -> bool:
        """Whether the samples are clean."""
        return self.index == self.schedule.num_steps

    @torch.no_grad()
    def evaluate(self) -> None:
        """Asks the model for the velocity at the states.

        Raises:
            FloatingPointError: if it is not finite.
        """
        sigma, _ = self.schedule.step(self.index)
        self._velocity = self._evaluate(self.x, sigma)

    @property
    def x0_pred(self) -> Tensor:
        """The clean latents [B, ...] that the model expects; after `evaluate`, before `advance`."""
        assert self._velocity is not None, "evaluate comes first"
        return predict_x0(self.x, self._velocity, self.schedule.step(self.index)[0])

    def keep(self, rows: Tensor) -> None:
        """Drops all samples but those with these numbers [B']."""
        self.x, self.evaluations = self.x[rows], self.evaluations[rows.cpu()]
        self._velocity = None if self._velocity is None else self._velocity[rows]
        self.guided = [replace(s, value=s.value[rows], ratio=s.ratio[rows]) for s in self.guided]
        self._condition = self._condition.take(rows)
        self._solver.keep(rows)

    @torch.no_grad()
    def advance(self) -> None:
        """Takes the step, with guidance where it is due."""
        assert self._velocity is not None, "evaluate comes first"
        sigma, _ = self.schedule.step(self.index)
        if self._guidance is None or not self._guidance.guides(self.index, sigma):
            self.x = self._solver.step(self.x, self._velocity, self.index, self._evaluate)
        else:
            change = self._correction(self._guidance, sigma)
            # The correction belongs to the step: a solver that evaluates twice gets it both times.
            self.x = self._solver.step(
                self.x,
                self._velocity + change,
                self.index,
                lambda x, level: self._evaluate(x, level) + change,
            )
        self._velocity = None
        self.index += 1

    def _evaluate(self, x: Tensor, sigma: float) -> Tensor:
        self.evaluations += self._condition.passes
        parts = [
            self._condition.take(rows).velocity(self._policy, x[rows], sigma) for rows in self._slices(len(x))
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _correction(self, guidance: RewardGuidance, sigma: float) -> Tensor:
        """What guidance adds to the velocity; noted in `guided`."""
        assert self._velocity is not None
        parts = []
        for rows in self._slices(len(self.x)):
            field = partial(self._condition.take(rows).velocity, self._policy)
            parts.append(guidance.correction(self.x[rows], self._velocity[rows], sigma, field))
        if guidance.through == "denoiser":
            self.evaluations += self._condition.passes
        value, ratio = (torch.cat([getattr(part, name) for part in parts]) for name in ("value", "ratio"))
        self.guided.append(GuidedStep(self.index, sigma, value, ratio))
        return torch.cat([part.velocity for part in parts])

    def _slices(self, count: int) -> list[slice]:
        size = self._micro_batch or count
        return [slice(start, start + size) for start in range(0, count, size)]
