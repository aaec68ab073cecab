"""What guidance climbs and best-of-N ranks by: rewards of the scene that latents hold, without a decoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry
from vggrpo.rewards import Reward


@dataclass(frozen=True, eq=False)
class LatentScore:
    """The rewards of B samples and their weighted mean."""

    value: Tensor
    """[B]: sum of weight * reward over the sum of the weights; NaN where a reward failed. For ranking."""
    ascent: Tensor
    """[B], finite: the same with failed rewards left out of the sum, so that the others still have their
    gradient. For guidance."""
    rewards: dict[str, Tensor]
    """Each reward [B] by name, NaN where it failed, without gradient."""


class LatentReward:
    """Normalised latents [B, C, T, H, W] to a `LatentScore`, differentiable in the latents.

    Args:
        geometry: latents to a scene, a `LatentGeometryModel`.
        rewards: by name; any differentiable function of a scene.
        weights: one for each reward, not negative. A reward of weight 0 is not computed.

    Raises:
        ValueError: if a weight is missing or negative, or none is positive.
    """

    def __init__(
        self,
        geometry: Callable[[Tensor], SceneGeometry],
        rewards: Mapping[str, Callable[[SceneGeometry], Reward]],
        weights: Mapping[str, float],
    ) -> None:
        if missing := [name for name in rewards if name not in weights]:
            raise ValueError(f"weights has none for {', '.join(missing)}; give one for each reward")
        if negative := [name for name in rewards if not weights[name] >= 0]:
            name = negative[0]
            raise ValueError(f"the weight of {name} is {weights[name]}, expected 0 or more")
        self._geometry = geometry
        self._rewards = {name: reward for name, reward in rewards.items() if weights[name] > 0}
        self._weights = {name: weights[name] for name in self._rewards}
        if not self._rewards:
            raise ValueError("no reward has a positive weight, so there is nothing to score")

    @property
    def weights(self) -> dict[str, float]:
        """The rewards that count, and how much."""
        return dict(self._weights)

    def __call__(self, latents: Tensor) -> LatentScore:
        """Scores each sample.

        Raises:
            ValueError: if the clip has too few views for a reward.
        """
        scene = self._geometry(latents)
        scored = {name: reward(scene) for name, reward in self._rewards.items()}
        total = sum(self._weights.values())
        kept = [
            self._weights[name] * torch.where(reward.valid, reward.value, 0.0)
            for name, reward in scored.items()
        ]
        ascent = torch.stack(kept).sum(dim=0) / total
        valid = torch.stack([reward.valid for reward in scored.values()]).all(dim=0)
        return LatentScore(
            value=torch.where(valid, ascent, torch.nan).detach(),
            ascent=ascent,
            rewards={name: reward.value.detach() for name, reward in scored.items()},
        )
