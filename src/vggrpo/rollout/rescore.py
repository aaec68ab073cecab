"""Scoring a stored step again, under the current policy or under the reference."""

from dataclasses import dataclass

from torch import Tensor

from vggrpo.backbones.base import VideoBackbone
from vggrpo.flow import TRANSITIONS, Transition
from vggrpo.rollout.condition import NonFiniteError
from vggrpo.rollout.types import RolloutGroup

ALL_MEMBERS = slice(None)


@dataclass(frozen=True, eq=False)
class RescoredStep:
    """One step of some members of a group as a policy sees it now."""

    transition: Transition
    """Its mean carries the gradient of the policy."""
    log_prob: Tensor
    """[B], of the state that the rollout drew: compare with `group.old_log_probs[members, step]`."""


def rescore(
    policy: VideoBackbone, group: RolloutGroup, step: int, members: slice = ALL_MEMBERS
) -> RescoredStep:
    """The distribution of a stored step under `policy`, and the log-probability of the state it led to.

    The policy runs with the prompt, guidance and transition of the rollout, on the device of the group's
    embeddings; once for all members where they share the state (see `shares_state`). Under the policy that
    drew the group, `log_prob` equals `old_log_probs`. The KL to the base model:

        current = rescore(policy, group, step, members)
        with torch.no_grad(), policy.lora_disabled():
            reference = rescore(policy, group, step, members)
        kl = current.transition.kl(reference.transition)

    Args:
        policy: the current policy, or the reference.
        group: what `sample_group` returned.
        step: 0 .. S - 1, counted within the window.
        members: which B members of the group; all K by default.

    Raises:
        ValueError: if the group has no such step.
        FloatingPointError: if the policy's velocity is not finite.
    """
    if not 0 <= step < group.num_steps:
        raise ValueError(f"step is {step}, but the group has {group.num_steps} scored steps, counted from 0")
    x, x_next = group.states[members, step : step + 2].to(group.condition.device).float().unbind(dim=1)
    sigma, sigma_next = group.sigmas[step : step + 2]
    if shares_state(group, step):
        # A member that was left out is stored as zeros.
        there = int(group.old_log_probs[members, step].isfinite().int().argmax())
        try:
            velocity = group.condition.velocity(policy, x[there : there + 1], sigma).expand_as(x)
        except NonFiniteError as error:
            error.samples = list(range(len(x)))
            raise
    else:
        velocity = group.condition.velocity(policy, x, sigma)
    transition = TRANSITIONS[group.transition](x, velocity, sigma, sigma_next, group.noise_scale)
    return RescoredStep(transition, transition.log_prob(x_next))


def shares_state(group: RolloutGroup, step: int) -> bool:
    """Whether all members step from the same state: in the window's first step, if they share their noise."""
    return group.shared_start and step == 0
