"""How far a policy has moved from its base model where its rollouts are deterministic.

Policy gradient and KL see the steps of the window only, but the policy's weights serve every noise level:
what they learn at high noise also changes how details are drawn at low noise, where nothing holds them.
"""

import torch
from torch import Tensor

from vggrpo.backbones.base import VideoBackbone
from vggrpo.flow import draw_noise
from vggrpo.io import make_generator
from vggrpo.rollout.types import RolloutGroup


def off_window_distance(
    policy: VideoBackbone, group: RolloutGroup, sigma: float, members: slice = slice(None)
) -> Tensor:
    """Squared difference of the policy's and the base model's velocity, mean over elements and members.

    At `sigma`, on the members' own clean latents with noise that their seeds determine; a KL of the same step
    would be this times a constant. Members that a rollout left out count as 0. Differentiable in the policy.

    Args:
        policy: with a LoRA; without it, it is the base model.
        group: what `sample_group` returned.
        sigma: a noise level in (0, 1).
        members: which B members of the group; all K by default.

    Raises:
        NonFiniteError: if a velocity is not finite.
    """
    clean = group.latents[members].to(group.condition.device)
    generators = [make_generator(seed, "off-window noise") for seed in group.seeds[members]]
    noise = draw_noise(generators, clean.shape[1:]).to(clean.device)
    x = (1.0 - sigma) * clean + sigma * noise
    velocity = group.condition.velocity(policy, x, sigma)
    with torch.no_grad(), policy.lora_disabled():
        base = group.condition.velocity(policy, x, sigma)
    distances = (velocity - base).square().flatten(1).mean(dim=1)
    there = group.old_log_probs[members].isfinite().all(dim=1)
    return torch.where(there, distances, 0.0).mean()
