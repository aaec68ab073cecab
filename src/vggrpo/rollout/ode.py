"""Deterministic sampling for inference and evaluation, guided towards a reward where that is asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vggrpo.backbones.base import VideoBackbone
from vggrpo.flow import SigmaSchedule
from vggrpo.rollout.batches import MicroBatches, OnStep
from vggrpo.rollout.condition import Condition
from vggrpo.rollout.guidance import RewardGuidance
from vggrpo.rollout.noise import initial_noise
from vggrpo.rollout.solvers import SolverName, SolverSettings
from vggrpo.rollout.trajectories import Trajectories


@torch.no_grad()
def sample_ode(
    policy: VideoBackbone,
    prompt_embeds: Tensor,
    schedule: SigmaSchedule,
    *,
    seeds: Sequence[int] | None = None,
    latent_shape: Sequence[int] | None = None,
    noises: Tensor | None = None,
    cfg_scale: float = 1.0,
    negative_prompt_embeds: Tensor | None = None,
    micro_batch: int | None = None,
    on_step: OnStep | None = None,
    solver: SolverName = "euler",
    guidance: RewardGuidance | None = None,
) -> Tensor:
    """Steps of the flow from given noises to clean latents, one sample per prompt.

    Args:
        policy: the model whose velocity drives the samples, on the device of `prompt_embeds`.
        prompt_embeds: [N, L, D].
        schedule: steps of decreasing noise, ending in 0.
        seeds: one per prompt, together with `latent_shape`. A seed starts from the same noise as the member
            of `sample_group` with that seed.
        latent_shape: (C, T_lat, H_lat, W_lat).
        noises: instead of both, the initial noises [N, C, T_lat, H_lat, W_lat] themselves.
        cfg_scale: classifier-free guidance; 1 is none, any other value needs `negative_prompt_embeds`.
        negative_prompt_embeds: [L, D].
        micro_batch: samples that run together; all N by default.
        on_step: progress callback.
        solver: "euler", "heun" or "unipc".
        guidance: towards a reward; of scale 0 it changes no bit.

    Returns:
        Normalised clean latents [N, C, T_lat, H_lat, W_lat], float32, on the device of `prompt_embeds`.

    Raises:
        ValueError: for arguments that do not fit together.
        FloatingPointError: if the policy's velocity is not finite.
    """
    condition = Condition(prompt_embeds, negative_prompt_embeds, cfg_scale)
    if prompt_embeds.ndim != 3:
        raise ValueError(
            f"prompt_embeds has shape {tuple(prompt_embeds.shape)}, expected one per sample, [N, L, D]"
        )
    if noises is None:
        if seeds is None or latent_shape is None:
            raise ValueError("sample_ode needs either seeds and latent_shape, or noises")
        noises = initial_noise(seeds, latent_shape)
    elif seeds is not None or latent_shape is not None:
        raise ValueError("sample_ode got noises and also seeds or latent_shape; give one or the other")
    if len(noises) != len(prompt_embeds):
        raise ValueError(
            f"there are {len(noises)} noises for {len(prompt_embeds)} prompts, expected one for each"
        )

    batches = MicroBatches(len(noises), micro_batch, schedule.num_steps, on_step)
    latents = noises.to(device=condition.device, dtype=torch.float32, copy=True)
    integrator = SolverSettings(solver)
    for members in batches:
        trajectories = Trajectories(
            policy, condition.take(members), integrator.start(schedule), latents[members], guidance=guidance
        )
        while not trajectories.done:
            trajectories.evaluate()
            trajectories.advance()
            batches.step_done()
        latents[members] = trajectories.x
    return latents
