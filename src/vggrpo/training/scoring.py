"""Scores rollouts: latents to geometry to rewards."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.config import RewardWeights
from vggrpo.lgm import LatentGeometryModel
from vggrpo.rewards import SceneReward
from vggrpo.rollout import RolloutGroup, Rows


@dataclass(frozen=True)
class Scores:
    """The rewards of G groups of K samples."""

    rewards: dict[str, Tensor]
    """[G, K] each."""
    valid: Tensor
    """[G, K] bool: every reward of the sample could be computed."""
    frac_skipped: float = 0.0
    """Share of the samples that were left out because they were not finite."""


def counted_weights(weights: RewardWeights, rewards: Mapping[str, SceneReward]) -> dict[str, float]:
    """The weights of the rewards that count; one of weight 0 is not computed, so its failures invalidate
    nothing.
    """
    given = weights.model_dump()
    return {name: given[name] for name in rewards if given[name] > 0}


def score_group(
    group: RolloutGroup,
    lgm: LatentGeometryModel,
    rewards: Mapping[str, SceneReward],
    batch_size: int,
    on_batch: Callable[[], None] | None = None,
) -> Scores:
    """Every reward of the members of one group, [K]; see `score_samples`."""
    return score_samples(group.latents, lgm, rewards, batch_size, group.condition.device, on_batch)


@torch.no_grad()
def score_samples(
    latents: Rows,
    lgm: LatentGeometryModel,
    rewards: Mapping[str, SceneReward],
    batch_size: int,
    device: torch.device,
    on_batch: Callable[[], None] | None = None,
) -> Scores:
    """Every reward of N samples, through the latent geometry model.

    In float32, whatever the policy's precision.

    Args:
        latents: [N, C, T_lat, H_lat, W_lat], anywhere.
        lgm: latents to geometry.
        rewards: by name.
        batch_size: samples scored at once.
        device: of the latent geometry model.
        on_batch: called before each batch.

    Returns:
        The scores, [N] each instead of [G, K], on the CPU.
    """
    values: dict[str, list[Tensor]] = defaultdict(list)
    valid: list[Tensor] = []
    for start in range(0, len(latents), batch_size):
        if on_batch is not None:
            on_batch()
        scene = lgm(latents[start : start + batch_size].to(device))
        scored = {name: reward(scene) for name, reward in rewards.items()}
        for name, reward in scored.items():
            values[name].append(reward.value.cpu())
        valid.append(torch.stack([reward.valid for reward in scored.values()]).all(dim=0).cpu())
    return Scores({name: torch.cat(parts) for name, parts in values.items()}, torch.cat(valid))
