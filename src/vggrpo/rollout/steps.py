"""The steps of a rollout: along the ODE to the window, at random through it, along the ODE to the end."""

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from vggrpo.flow import TRANSITIONS, SigmaSchedule, Transition
from vggrpo.rollout.solvers import SolverSettings, VelocityField

OdeSolver = Literal["euler", "heun", "unipc"]


class RolloutSteps:
    """What happens to a sample from noise to clean latents.

    Args:
        schedule: N steps of decreasing noise, ending in 0.
        window: (start, length) of the stochastic steps; by default all but the last, which leads to sigma 0
            and is never stochastic.
        transition: name of the stochastic transition, a key of `vggrpo.flow.TRANSITIONS`.
        noise_scale: its amount of noise.
        ode_solver: of the other steps: "euler", "heun" (two evaluations a step, second order), or "unipc"
            (one, multistep, second order; it starts anew behind the window).
        ode_stride: the ODE visits every n-th level only; it always visits the window's ends.

    Raises:
        ValueError: for arguments out of range, or a window beyond the steps that can be stochastic.
    """

    def __init__(
        self,
        schedule: SigmaSchedule,
        window: tuple[int, int] | None = None,
        transition: str = "flow_sde",
        noise_scale: float = 0.7,
        ode_solver: OdeSolver = "euler",
        ode_stride: int = 1,
    ) -> None:
        self.schedule = schedule
        self.first, self.length = _check_window(window, schedule.num_steps)
        _check_transition(transition, noise_scale, self.length)
        if ode_solver not in get_args(OdeSolver):
            raise ValueError(
                f"ode_solver is {ode_solver!r}, expected one of {', '.join(get_args(OdeSolver))}"
            )
        if ode_stride < 1:
            raise ValueError(f"ode_stride is {ode_stride}, expected at least 1")
        self._transition, self._noise_scale = TRANSITIONS[transition], noise_scale
        self._solver = SolverSettings(ode_solver)
        stop = self.first + self.length
        before = [*range(0, self.first, ode_stride), self.first]
        after = [*range(stop, schedule.num_steps, ode_stride), schedule.num_steps]
        self.num_before, self.num_after = len(before) - 1, len(after) - 1
        """ODE steps to the window and behind it."""
        sigmas = schedule.sigmas
        # A schedule ends in 0: the levels behind the window are there, but their steps are never taken.
        self._before = SigmaSchedule(torch.cat([sigmas[before], sigmas[self.first + 1 :]]))
        self._after = SigmaSchedule(sigmas[after])

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The levels of the window's states, `length` + 1; none if no step is stochastic."""
        count = self.length + 1 if self.length else 0
        return tuple(self.schedule.sigmas[self.first : self.first + count].tolist())

    def forwards(self, members: int, shared_start: bool) -> int:
        """Evaluations of the velocity for a group of `members`; if they start from one noise, one is enough
        before the window and in its first step."""
        each = 2 if self._solver.name == "heun" else 1
        together = each * self.num_before + min(self.length, 1)
        own = max(self.length - 1, 0) + each * (self.num_after - 1) + 1  # the step to sigma 0 is Euler's
        return together * (1 if shared_start else members) + own * members

    def enter(self, x: Tensor, velocity: VelocityField, on_step: Callable[[], None]) -> Tensor:
        """From noise [B, ...] to the window's first state, or to its place if it is empty."""
        return self._integrate(self._before, self.num_before, x, velocity, on_step)

    def leave(self, x: Tensor, velocity: VelocityField, on_step: Callable[[], None]) -> Tensor:
        """From the window's last state [B, ...] to clean latents."""
        return self._integrate(self._after, self.num_after, x, velocity, on_step)

    def stochastic(self) -> Iterator[tuple[int, float]]:
        """The stochastic steps: number in the schedule, and sigma where each begins."""
        for index in range(self.first, self.first + self.length):
            yield index, self.schedule.step(index)[0]

    def transition(self, x: Tensor, velocity: Tensor, index: int) -> Transition:
        """The stochastic step `index` from states [B, ...]."""
        return self._transition(x, velocity, *self.schedule.step(index), self._noise_scale)

    def _integrate(
        self,
        schedule: SigmaSchedule,
        steps: int,
        x: Tensor,
        velocity: VelocityField,
        on_step: Callable[[], None],
    ) -> Tensor:
        solver = self._solver.start(schedule)
        for index in range(steps):
            sigma, _ = schedule.step(index)
            x = solver.step(x, velocity(x, sigma), index, velocity)
            on_step()
        return x


def _check_window(window: tuple[int, int] | None, num_steps: int) -> tuple[int, int]:
    """The window (start, length) itself; without one, every step but the last."""
    start, length = (0, num_steps - 1) if window is None else window
    if start < 0 or length < 0 or start + length > num_steps - 1:
        raise ValueError(
            f"window is (start {start}, length {length}), but only the first {num_steps - 1} of {num_steps} "
            "steps can be stochastic: the last one leads to sigma 0"
        )
    return start, length


def _check_transition(transition: str, noise_scale: float, length: int) -> None:
    """Makes sure that the transition exists and can make `length` stochastic steps."""
    if transition not in TRANSITIONS:
        raise ValueError(f"transition is {transition!r}, expected one of {', '.join(TRANSITIONS)}")
    if length and not noise_scale > 0.0:
        raise ValueError(
            f"noise_scale is {noise_scale}, but the window has {length} stochastic steps; "
            "use a positive noise_scale, or window=(0, 0) for the ODE"
        )
