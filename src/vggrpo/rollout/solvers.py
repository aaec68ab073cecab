"""Solvers of the flow: how a state and its velocity become the next state."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from vggrpo.flow import TRANSITIONS, SigmaSchedule, ode_step
from vggrpo.rollout.noise import step_generators

SolverName = Literal["euler", "heun", "unipc", "sde"]
VelocityField = Callable[[Tensor, float], Tensor]
"""(latents [B, ...], sigma) to velocity [B, ...]."""

MAX_UNIPC_SIGMA = 1.0 - 1e-6
"""UniPC works with log(1 - sigma); the scheduler of diffusers starts here too."""


@dataclass(frozen=True)
class SolverSettings:
    """Which solver, and the noise of the stochastic one.

    Raises:
        ValueError: if there is no such solver or transition, or the noise scale is not positive.
    """

    name: SolverName = "euler"
    """"euler": one evaluation a step, first order. "heun": two, second order. "unipc": one, multistep, second
    order, the solver of diffusers' Wan pipelines. "sde": stochastic transitions in all steps but the last."""
    transition: str = "flow_sde"
    """Of "sde": a key of `vggrpo.flow.TRANSITIONS`."""
    noise_scale: float = 0.7
    """Of "sde"."""

    def __post_init__(self) -> None:
        if self.name not in get_args(SolverName):
            raise ValueError(f"solver is {self.name!r}, expected one of {', '.join(get_args(SolverName))}")
        if self.name == "sde" and self.transition not in TRANSITIONS:
            raise ValueError(f"transition is {self.transition!r}, expected one of {', '.join(TRANSITIONS)}")
        if self.name == "sde" and not self.noise_scale > 0:
            raise ValueError(
                f"noise_scale is {self.noise_scale}, but the SDE needs a positive one; the ODE has none"
            )

    def start(self, schedule: SigmaSchedule, seeds: Sequence[int] | None = None) -> "Solver":
        """A solver for one batch of trajectories; `seeds`, one each, draw the noise of "sde".

        Raises:
            ValueError: if "sde" is given no seeds.
        """
        if self.name == "heun":
            return Heun(schedule)
        if self.name == "unipc":
            return UniPC(schedule)
        if self.name == "euler":
            return Euler(schedule)
        if seeds is None:
            raise ValueError("the SDE draws noise at every step; give the seeds of the samples")
        return Stochastic(schedule, seeds, self.transition, self.noise_scale)


class Solver(ABC):
    """Takes one batch of trajectories along a schedule, step by step and once."""

    def __init__(self, schedule: SigmaSchedule) -> None:
        self.schedule = schedule

    @abstractmethod
    def step(self, x: Tensor, velocity: Tensor, index: int, field: VelocityField) -> Tensor:
        """The latents after step `index`, [B, ...].

        Args:
            x: latents before it, [B, ...].
            velocity: there, with all that guidance added.
            index: of the step, from 0.
            field: velocity elsewhere, for solvers that evaluate it more than once.
        """

    def keep(self, rows: Tensor) -> None:  # noqa: B027 (most solvers remember nothing of a sample)
        """Goes on with some samples only, by their numbers [B']."""


class Euler(Solver):
    """x + dt v."""

    def step(self, x: Tensor, velocity: Tensor, index: int, field: VelocityField) -> Tensor:
        return ode_step(x, velocity, *self.schedule.step(index))


class Heun(Solver):
    """x + dt (v + v') / 2 with v' where an Euler step leads; the step to sigma 0 is Euler's."""

    def step(self, x: Tensor, velocity: Tensor, index: int, field: VelocityField) -> Tensor:
        sigma, sigma_next = self.schedule.step(index)
        predicted = ode_step(x, velocity, sigma, sigma_next)
        if sigma_next == 0.0:  # a denoiser of clean latents has no velocity there
            return predicted
        mean = 0.5 * (velocity + field(predicted, sigma_next))
        return ode_step(x, mean, sigma, sigma_next)


class UniPC(Solver):
    """diffusers' `UniPCMultistepScheduler` as Wan's pipelines set it, on this schedule's float levels.

    It combines the velocities of several steps, so what guidance adds at one step acts over its neighbours
    too; in all it is the same.
    """

    def __init__(self, schedule: SigmaSchedule) -> None:
        from diffusers import UniPCMultistepScheduler

        super().__init__(schedule)
        self._scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
        self._scheduler.set_timesteps(schedule.num_steps)
        self._scheduler.sigmas = schedule.sigmas.clamp(max=MAX_UNIPC_SIGMA).float()
        self._scheduler.set_begin_index(0)

    def step(self, x: Tensor, velocity: Tensor, index: int, field: VelocityField) -> Tensor:
        stepped: Tensor = self._scheduler.step(velocity, index, x, return_dict=False)[0]
        return stepped

    def keep(self, rows: Tensor) -> None:
        outputs = self._scheduler.model_outputs
        self._scheduler.model_outputs = [None if output is None else output[rows] for output in outputs]
        if self._scheduler.last_sample is not None:
            self._scheduler.last_sample = self._scheduler.last_sample[rows]


class Stochastic(Solver):
    """Stochastic transitions; the step to sigma 0 is Euler's. The samples are those of `sample_sde`."""

    def __init__(
        self, schedule: SigmaSchedule, seeds: Sequence[int], transition: str, noise_scale: float
    ) -> None:
        super().__init__(schedule)
        self._seeds = list(seeds)
        self._transition, self._noise_scale = TRANSITIONS[transition], noise_scale

    def step(self, x: Tensor, velocity: Tensor, index: int, field: VelocityField) -> Tensor:
        sigma, sigma_next = self.schedule.step(index)
        if index == self.schedule.num_steps - 1:
            return ode_step(x, velocity, sigma, sigma_next)
        transition = self._transition(x, velocity, sigma, sigma_next, self._noise_scale)
        return transition.sample(step_generators(self._seeds, index))

    def keep(self, rows: Tensor) -> None:
        self._seeds = [self._seeds[int(row)] for row in rows]
