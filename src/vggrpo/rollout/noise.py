"""The noise of a rollout as a function of its seed and the step alone.

Every draw has its own generator on the CPU: a sample is the same whatever batch, process or device makes
it, and nothing has to be saved to resume.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vggrpo.flow import draw_noise
from vggrpo.io import make_generator


def initial_noise(seeds: Sequence[int], latent_shape: Sequence[int]) -> Tensor:
    """The pure noise from which the samples with these seeds start.

    Returns:
        [N, C, T_lat, H_lat, W_lat], float32 on the CPU, for `latent_shape` (C, T_lat, H_lat, W_lat).
    """
    return draw_noise([make_generator(seed, "initial noise") for seed in seeds], latent_shape)


def step_generators(seeds: Sequence[int], step: int) -> list[torch.Generator]:
    """One generator per sample for the noise that step `step` of the schedule adds."""
    return [make_generator(seed, "step noise", step) for seed in seeds]
