"""Groups of stochastic trajectories for policy training."""

from collections.abc import Sequence

import torch

from vggrpo.backbones.base import VideoBackbone
from vggrpo.flow import TRANSITIONS, SigmaSchedule, ode_step
from vggrpo.rollout.batches import MicroBatches, OnStep
from vggrpo.rollout.condition import Condition
from vggrpo.rollout.noise import initial_noise, step_generators
from vggrpo.rollout.types import RolloutGroup


@torch.no_grad()
def sample_group(
    policy: VideoBackbone,
    prompt_embeds: torch.Tensor,
    schedule: SigmaSchedule,
    seeds: Sequence[int],
    latent_shape: Sequence[int],
    *,
    prompt_id: str = "",
    transition: str = "flow_sde",
    noise_scale: float = 0.7,
    window: tuple[int, int] | None = None,
    cfg_scale: float = 1.0,
    negative_prompt_embeds: torch.Tensor | None = None,
    shared_noise_seed: int | None = None,
    micro_batch: int | None = None,
    storage_dtype: torch.dtype = torch.float32,
    storage_device: torch.device | str | None = None,
    on_step: OnStep | None = None,
) -> RolloutGroup:
    """Draws one group of trajectories for one prompt.

    The steps of the window are stochastic and scored, all others follow the ODE. A state of the window is
    rounded to `storage_dtype` *before* it is stepped from and scored: scoring it again gives the same
    log-probability.

    Args:
        policy: the model whose velocity drives the samples, on the device of `prompt_embeds`.
        prompt_embeds: [L, D].
        schedule: N steps of decreasing noise, ending in 0.
        seeds: one per member, so K in all; the noises of a member depend on its own seed alone.
        latent_shape: (C, T_lat, H_lat, W_lat).
        prompt_id: carried into the group.
        transition: name of the stochastic transition, a key of `vggrpo.flow.TRANSITIONS`.
        noise_scale: its amount of noise.
        window: (start, length) of the stochastic steps; by default all but the last, which leads to sigma 0
            and is never stochastic.
        cfg_scale: classifier-free guidance; 1 is none, any other value needs `negative_prompt_embeds`.
        negative_prompt_embeds: [L, D].
        shared_noise_seed: where given, all members start from the initial noise of this seed, and the steps
            before the window are computed once for all.
        micro_batch: members that run together; all K by default. Where kernels round differently for other
            batch sizes (bfloat16), score the group again in the same micro-batches.
        storage_dtype: of the stored states.
        storage_device: of the stored states, by default the policy's; "cpu" spares GPU memory.
        on_step: progress callback.

    Raises:
        ValueError: for arguments that do not fit together.
        FloatingPointError: if the policy's velocity is not finite.
    """
    condition = Condition(prompt_embeds, negative_prompt_embeds, cfg_scale)
    if prompt_embeds.ndim != 2:
        raise ValueError(f"prompt_embeds has shape {tuple(prompt_embeds.shape)}, expected one prompt, [L, D]")
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds are {list(seeds)}, but members with the same seed would be the same sample")
    first, length = check_window(window, schedule.num_steps)
    check_transition(transition, noise_scale, length)
    if not storage_dtype.is_floating_point:
        raise ValueError(f"storage_dtype is {storage_dtype}, expected a floating-point type")

    group_size, num_states = len(seeds), length + 1 if length else 0
    own_steps = schedule.num_steps - (first if shared_noise_seed is not None else 0)
    batches = MicroBatches(group_size, micro_batch, own_steps, on_step)
    latents = torch.empty((group_size, *latent_shape), device=condition.device)
    states = torch.empty(
        (group_size, num_states, *latent_shape),
        dtype=storage_dtype,
        device=storage_device or condition.device,
    )
    log_probs = torch.empty((group_size, length), device=condition.device)

    steps = list(schedule.steps())
    shared = None
    if shared_noise_seed is not None:
        shared = initial_noise([shared_noise_seed], latent_shape).to(condition.device)
        for sigma, sigma_next in steps[:first]:
            shared = ode_step(shared, condition.velocity(policy, shared, sigma), sigma, sigma_next)
    begins = 0 if shared is None else first

    for members in batches:
        own_seeds = seeds[members]
        if shared is None:
            x = initial_noise(own_seeds, latent_shape).to(condition.device)
        else:
            x = shared.expand(len(own_seeds), *latent_shape)
        for index, (sigma, sigma_next) in enumerate(steps[begins:], begins):
            slot = index - first  # place in the window
            if slot == 0 and length:
                x = x.to(storage_dtype).float()
                states[members, 0] = x.to(states)
            velocity = condition.velocity(policy, x, sigma)
            if 0 <= slot < length:
                step = TRANSITIONS[transition](x, velocity, sigma, sigma_next, noise_scale)
                x = step.sample(step_generators(own_seeds, index)).to(storage_dtype).float()
                states[members, slot + 1] = x.to(states)
                log_probs[members, slot] = step.log_prob(x)
            else:
                x = ode_step(x, velocity, sigma, sigma_next)
            batches.step_done()
        latents[members] = x

    return RolloutGroup(
        prompt_id=prompt_id,
        seeds=tuple(seeds),
        latents=latents,
        states=states,
        old_log_probs=log_probs,
        sigmas=tuple(schedule.sigmas[first : first + num_states].tolist()),
        condition=condition,
        transition=transition,
        noise_scale=noise_scale,
    )


def check_window(window: tuple[int, int] | None, num_steps: int) -> tuple[int, int]:
    """The window (start, length) itself; without one, every step but the last.

    Raises:
        ValueError: if it reaches beyond the steps that can be stochastic.
    """
    start, length = (0, num_steps - 1) if window is None else window
    if start < 0 or length < 0 or start + length > num_steps - 1:
        raise ValueError(
            f"window is (start {start}, length {length}), but only the first {num_steps - 1} of {num_steps} "
            "steps can be stochastic: the last one leads to sigma 0"
        )
    return start, length


def check_transition(transition: str, noise_scale: float, length: int) -> None:
    """Raises ValueError unless the transition exists and can make `length` stochastic steps."""
    if transition not in TRANSITIONS:
        raise ValueError(f"transition is {transition!r}, expected one of {', '.join(TRANSITIONS)}")
    if length and not noise_scale > 0.0:
        raise ValueError(
            f"noise_scale is {noise_scale}, but the window has {length} stochastic steps; "
            "use a positive noise_scale, or window=(0, 0) for the ODE"
        )
