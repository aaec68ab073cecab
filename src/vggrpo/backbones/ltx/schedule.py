"""LTX-Video's sigma grid: shifted by the number of tokens, and stretched to end above zero."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler

from vggrpo.flow import SigmaSchedule

EXCLUDED = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
)


@dataclass(frozen=True)
class SigmaGrid:
    """The levels s = 1, 1 - 1/N, ..., 1/N, shifted by shift * s / (1 + (shift - 1) * s), then stretched.

    Source: `LTXPipeline.__call__` and FlowMatchEulerDiscreteScheduler of diffusers.
    """

    shift: float | None
    """The same for every clip; None shifts by the number of tokens."""
    log_shifts: tuple[float, float]
    """Logarithms of the shift at the two numbers of `tokens`; linear between and beyond them."""
    tokens: tuple[int, int]
    terminal: float | None
    """The last level before 0, to which the levels are stretched; None leaves them."""

    @classmethod
    def of_pipeline(cls, scheduler_config: Mapping[str, Any], flow_shift: float | None) -> "SigmaGrid":
        """The grid of a pipeline's scheduler; `flow_shift` takes the place of its own shift.

        Raises:
            ValueError: if the scheduler is of another class or its options lead to another grid.
        """
        name = scheduler_config.get("_class_name")
        if name != "FlowMatchEulerDiscreteScheduler":
            raise ValueError(
                f"the pipeline's scheduler is {name}, whose sigma grid is not LTX-Video's; expected a "
                "FlowMatchEulerDiscreteScheduler"
            )
        config = FlowMatchEulerDiscreteScheduler.from_config(dict(scheduler_config)).config
        for key in EXCLUDED:
            if config[key]:
                raise ValueError(f"the scheduler's {key} is {config[key]!r}: such a grid is not supported")
        for key, expected in (("num_train_timesteps", 1000), ("time_shift_type", "exponential")):
            if config[key] != expected:
                raise ValueError(
                    f"the scheduler's {key} is {config[key]!r}, expected {expected!r}: the model is not "
                    "sampled on LTX-Video's sigma grid"
                )
        own_shift = None if config["use_dynamic_shifting"] else float(config["shift"])
        return cls(
            shift=own_shift if flow_shift is None else flow_shift,
            log_shifts=(config["base_shift"], config["max_shift"]),
            tokens=(config["base_image_seq_len"], config["max_image_seq_len"]),
            terminal=config["shift_terminal"] or None,
        )

    def shift_of(self, num_tokens: int) -> float:
        """The shift of a clip of so many tokens."""
        if self.shift is not None:
            return self.shift
        (low, high), (few, many) = self.log_shifts, self.tokens
        return math.exp(low + (high - low) * (num_tokens - few) / (many - few))

    def schedule(self, num_steps: int, num_tokens: int) -> SigmaSchedule:
        """The levels of a clip of so many tokens, ending in 0. One step alone is not stretched."""
        schedule = SigmaSchedule.linear(num_steps, self.shift_of(num_tokens))
        if self.terminal is None or num_steps == 1:
            return schedule
        sigmas = schedule.sigmas.clone()
        sigmas[:-1] = 1.0 - (1.0 - sigmas[:-1]) * (1.0 - self.terminal) / (1.0 - sigmas[-2])
        return SigmaSchedule(sigmas)

    def identity(self) -> dict[str, str | float]:
        """What determines the levels, fit for JSON."""
        (low, high), (few, many) = self.log_shifts, self.tokens
        by_size = f"exp({low:g}) at {few} tokens, exp({high:g}) at {many}"
        return {
            "flow_shift": by_size if self.shift is None else self.shift,
            "last_sigma": "not stretched" if self.terminal is None else self.terminal,
        }
