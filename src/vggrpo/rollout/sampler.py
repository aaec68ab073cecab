"""Groups of stochastic trajectories for policy training."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vggrpo.backbones.base import VideoBackbone
from vggrpo.flow import SigmaSchedule
from vggrpo.rollout.batches import MicroBatches, OnStep
from vggrpo.rollout.condition import Condition, NonFiniteError
from vggrpo.rollout.noise import initial_noise, step_generators
from vggrpo.rollout.steps import OdeSolver, RolloutSteps
from vggrpo.rollout.storage import Shelf
from vggrpo.rollout.types import RolloutGroup


@torch.no_grad()
def sample_group(
    policy: VideoBackbone,
    prompt_embeds: Tensor,
    schedule: SigmaSchedule,
    seeds: Sequence[int],
    latent_shape: Sequence[int],
    *,
    prompt_id: str = "",
    transition: str = "flow_sde",
    noise_scale: float = 0.7,
    window: tuple[int, int] | None = None,
    ode_solver: OdeSolver = "euler",
    ode_stride: int = 1,
    cfg_scale: float = 1.0,
    negative_prompt_embeds: Tensor | None = None,
    shared_noise_seed: int | None = None,
    micro_batch: int | None = None,
    storage_dtype: torch.dtype = torch.float32,
    storage_device: torch.device | str | None = None,
    storage_folder: Path | None = None,
    storage_key: str | None = None,
    agree: Callable[[bool], bool] = bool,
    in_memory: bool = False,
    blank_nonfinite: bool = False,
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
        ode_solver: of the steps outside the window: "euler", "heun" or "unipc" (see `RolloutSteps`).
        ode_stride: those steps visit every n-th level only.
        cfg_scale: classifier-free guidance; 1 is none, any other value needs `negative_prompt_embeds`.
        negative_prompt_embeds: [L, D].
        shared_noise_seed: where given, all members start from the initial noise of this seed: the steps
            before the window, and the velocity from which they part in its first, are computed once.
        micro_batch: members that run together; all K by default. Where kernels round differently for other
            batch sizes (bfloat16), score the group again in the same micro-batches.
        storage_dtype: of the stored states.
        storage_device: of the stored states and clean latents, by default the policy's; "cpu" spares GPU
            memory (and is pinned there).
        storage_folder: keeps both in files there instead, one a micro-batch; the group reads from them, so
            they must stay as long as it is used.
        storage_key: says what the group is made from. Micro-batches that an interrupted call with the same
            key has left in `storage_folder` are not drawn again.
        agree: from whether a micro-batch is there to whether it is taken; ranks that must make the same
            forward passes take the same ones.
        in_memory: with a `storage_folder`: the files are for a later call only, the group is in memory.
        blank_nonfinite: keeps a member that is not finite as zeros with log-probability NaN, instead of
            raising.
        on_step: progress callback.

    Raises:
        ValueError: for arguments that do not fit together.
        NonFiniteError: if a member is not finite; its `samples` are members.
        DiskFullError: if there is no space for the files.
    """
    condition = Condition(prompt_embeds, negative_prompt_embeds, cfg_scale)
    if prompt_embeds.ndim != 2:
        raise ValueError(f"prompt_embeds has shape {tuple(prompt_embeds.shape)}, expected one prompt, [L, D]")
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds are {list(seeds)}, but members with the same seed would be the same sample")
    steps = RolloutSteps(schedule, window, transition, noise_scale, ode_solver, ode_stride)
    if not storage_dtype.is_floating_point:
        raise ValueError(f"storage_dtype is {storage_dtype}, expected a floating-point type")

    shares_start = shared_noise_seed is not None
    own_steps = (0 if shares_start else steps.num_before) + steps.length + steps.num_after
    batches = MicroBatches(len(seeds), micro_batch, own_steps, on_step)
    shape, device = tuple(latent_shape), condition.device
    layout = {
        "states": ((len(steps.sigmas), *shape), storage_dtype),
        "latents": (shape, torch.float32),
        "log_probs": ((steps.length,), torch.float32),
    }
    storage = torch.device(storage_device or device)
    shelf = Shelf(layout, len(seeds), storage, device, storage_folder, in_memory, storage_key)

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return condition.velocity(policy, x, sigma, require_finite=not blank_nonfinite)

    def draw(members: slice, kept: dict[str, Tensor]) -> None:
        own_seeds = seeds[members]
        if shared is None:
            x = steps.enter(initial_noise(own_seeds, shape).to(device), velocity, batches.step_done)
        else:
            x = shared.expand(len(own_seeds), *shape)
        if steps.length:
            x = x.to(storage_dtype).float()
            kept["states"][:, 0] = x
        for place, (index, sigma) in enumerate(steps.stochastic()):
            predicted = parting.expand_as(x) if place == 0 and parting is not None else velocity(x, sigma)
            step = steps.transition(x, predicted, index)
            x = step.sample(step_generators(own_seeds, index)).to(storage_dtype).float()
            kept["states"][:, place + 1] = x
            kept["log_probs"][:, place] = step.log_prob(x)
            batches.step_done()
        kept["latents"][:] = steps.leave(x, velocity, batches.step_done)

    shared = parting = None
    if shared_noise_seed is not None:
        shared = initial_noise([shared_noise_seed], shape).to(device)
        try:
            shared = steps.enter(shared, velocity, on_step=lambda: None)
            if steps.length:
                parting = velocity(shared.to(storage_dtype).float(), steps.sigmas[0])
        except NonFiniteError as error:
            error.samples = list(range(len(seeds)))
            raise

    for members in batches:
        if shelf.recover(members, agree):
            continue
        kept = shelf.room(members)
        try:
            draw(members, kept)
            if blank_nonfinite and steps.length:
                _blank(kept)
        except NonFiniteError as error:
            error.samples = [members.start + sample for sample in error.samples]
            raise
        shelf.keep(members, kept)

    return RolloutGroup(
        prompt_id=prompt_id,
        seeds=tuple(seeds),
        latents=shelf.tensor("latents"),
        states=shelf.tensor("states"),
        old_log_probs=shelf.tensor("log_probs")[:].to(device),
        sigmas=steps.sigmas,
        condition=condition,
        transition=transition,
        noise_scale=noise_scale,
        shared_start=shares_start,
    )


def _blank(kept: dict[str, Tensor]) -> None:
    """Replaces members that are not finite by zeros with log-probability NaN."""
    broken = ~torch.stack([torch.isfinite(t).flatten(1).all(dim=1) for t in kept.values()]).all(dim=0)
    for name, tensor in kept.items():
        tensor[broken] = torch.nan if name == "log_probs" else 0.0
