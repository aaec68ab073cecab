"""Stochastic sampling for evaluation: rollouts without what only their training needs."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from vggrpo.backbones.base import VideoBackbone
from vggrpo.flow import SigmaSchedule
from vggrpo.rollout.batches import MicroBatches, OnStep
from vggrpo.rollout.condition import Condition
from vggrpo.rollout.noise import initial_noise, step_generators
from vggrpo.rollout.steps import OdeSolver, RolloutSteps


@torch.no_grad()
def sample_sde(
    policy: VideoBackbone,
    prompt_embeds: Tensor,
    schedule: SigmaSchedule,
    *,
    seeds: Sequence[int],
    latent_shape: Sequence[int],
    transition: str = "flow_sde",
    noise_scale: float = 0.7,
    window: tuple[int, int] | None = None,
    ode_solver: OdeSolver = "euler",
    ode_stride: int = 1,
    cfg_scale: float = 1.0,
    negative_prompt_embeds: Tensor | None = None,
    micro_batch: int | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Clean latents of stochastic trajectories, one sample per prompt.

    A sample is the one that `sample_group` draws for the same prompt and seed, and starts from the same noise
    as that of `sample_ode`.

    Args:
        policy: the model whose velocity drives the samples, on the device of `prompt_embeds`.
        prompt_embeds: [N, L, D].
        schedule: steps of decreasing noise, ending in 0.
        seeds: one per prompt.
        latent_shape: (C, T_lat, H_lat, W_lat).
        transition: name of the stochastic transition, a key of `vggrpo.flow.TRANSITIONS`.
        noise_scale: its amount of noise.
        window: (start, length) of the stochastic steps; by default all but the last.
        ode_solver: of the other steps, as of `sample_group`.
        ode_stride: likewise.
        cfg_scale: classifier-free guidance; 1 is none, any other value needs `negative_prompt_embeds`.
        negative_prompt_embeds: [L, D].
        micro_batch: samples that run together; all N by default.
        on_step: progress callback.

    Returns:
        Normalised clean latents [N, C, T_lat, H_lat, W_lat], float32, on the device of `prompt_embeds`.

    Raises:
        ValueError: for arguments that do not fit together.
        FloatingPointError: if the policy's velocity is not finite.
    """
    condition = Condition(prompt_embeds, negative_prompt_embeds, cfg_scale)
    if prompt_embeds.ndim != 3 or len(prompt_embeds) != len(seeds):
        raise ValueError(
            f"prompt_embeds has shape {tuple(prompt_embeds.shape)}, expected one per seed, "
            f"[{len(seeds)}, L, D]"
        )
    steps = RolloutSteps(schedule, window, transition, noise_scale, ode_solver, ode_stride)
    own_steps = steps.num_before + steps.length + steps.num_after
    batches = MicroBatches(len(seeds), micro_batch, own_steps, on_step)
    latents = torch.empty((len(seeds), *latent_shape), device=condition.device)
    for members in batches:
        own_seeds, velocity = seeds[members], partial(condition.take(members).velocity, policy)
        noises = initial_noise(own_seeds, latent_shape).to(condition.device)
        x = steps.enter(noises, velocity, batches.step_done)
        for index, sigma in steps.stochastic():
            x = steps.transition(x, velocity(x, sigma), index).sample(step_generators(own_seeds, index))
            batches.step_done()
        latents[members] = steps.leave(x, velocity, batches.step_done)
    return latents
