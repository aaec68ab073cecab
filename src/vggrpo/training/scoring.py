"""Scores rollouts: latents to geometry to rewards."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.config import RewardWeights
from vggrpo.lgm import LatentGeometryModel
from vggrpo.rewards import SceneReward
from vggrpo.rollout import RolloutGroup


@dataclass(frozen=True)
class Scores:
    """The rewards of G groups of K samples."""

    rewards: dict[str, Tensor]
    """[G, K] each."""
    valid: Tensor
    """[G, K] bool: every reward of the sample could be computed."""


def counted_weights(weights: RewardWeights, rewards: Mapping[str, SceneReward]) -> dict[str, float]:
    """The weights of the rewards that count; one of weight 0 is not computed, so its failures invalidate
    nothing.
    """
    given = weights.model_dump()
    return {name: given[name] for name in rewards if given[name] > 0}


def score_groups(
    groups: Sequence[RolloutGroup],
    lgm: LatentGeometryModel,
    rewards: Mapping[str, SceneReward],
    batch_size: int,
) -> Scores:
    """Every reward of every sample of G groups of the same number K of samples; see `score_samples`."""
    scores = score_samples(torch.cat([group.latents for group in groups]), lgm, rewards, batch_size)
    shape = (len(groups), groups[0].group_size)
    return Scores(
        {name: value.view(shape) for name, value in scores.rewards.items()}, scores.valid.view(shape)
    )


@torch.no_grad()
def score_samples(
    latents: Tensor, lgm: LatentGeometryModel, rewards: Mapping[str, SceneReward], batch_size: int
) -> Scores:
    """Every reward of N samples, through the latent geometry model.

    In float32, whatever the policy's precision.

    Args:
        latents: [N, C, T_lat, H_lat, W_lat].
        lgm: latents to geometry.
        rewards: by name.
        batch_size: samples scored at once.

    Returns:
        The scores, [N] each instead of [G, K], on the CPU.
    """
    values: dict[str, list[Tensor]] = defaultdict(list)
    valid: list[Tensor] = []
    for batch in latents.split(batch_size):
        scene = lgm(batch)
        scored = {name: reward(scene) for name, reward in rewards.items()}
        for name, reward in scored.items():
            values[name].append(reward.value.cpu())
        valid.append(torch.stack([reward.valid for reward in scored.values()]).all(dim=0).cpu())
    return Scores({name: torch.cat(parts) for name, parts in values.items()}, torch.cat(valid))
