"""Group-relative advantages: how much better a sample is than the others of the same prompt."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ZERO_STD = 1e-6
"""A group whose std is at most this times max(1, |mean|) is constant: float32 rounding, not a difference."""
NO_ADVANTAGE = 1e-6
"""An advantage of at most this is none: z-scores of what differs have deviation 1."""


def group_advantages(
    rewards: Mapping[str, Tensor],
    weights: Mapping[str, float] | None = None,
    valid: Tensor | None = None,
    adv_clip: float = 5.0,
) -> Tensor:
    """Weighted mean of the rewards' z-scores within each group, clipped to +-`adv_clip`.

        A = clip( sum_r w_r (r - mean(r)) / std(r) / sum_r w_r )

    Mean and (population) std are taken over the valid samples of a group. A reward that is constant in a
    group has z-score 0 there; a sample that is not valid has advantage 0.

    Args:
        rewards: by name, [G, K] each: G groups (prompts) of K samples, higher is better.
        weights: by name, finite and >= 0 with a positive sum; equal by default.
        valid: [G, K] bool; False marks samples whose reward could not be computed: their values are not read.
        adv_clip: positive bound of the result.

    Returns:
        [G, K], float32.

    Raises:
        ValueError: for shapes that differ, weights of other names, or a valid sample that is not finite.
    """
    if not adv_clip > 0.0:
        raise ValueError(f"adv_clip is {adv_clip}, expected a positive number")
    valid = _check_rewards(rewards, valid)
    shares = _normalised_weights(rewards, weights)
    total = torch.zeros_like(valid, dtype=torch.float64)
    for name, value in rewards.items():
        moments = _group_moments(value, valid)
        centred = value.to(torch.float64) - moments.mean
        z_score = centred / torch.where(moments.constant, 1.0, moments.std)
        total = total + shares[name] * torch.where(valid & ~moments.constant, z_score, 0.0)
    return total.clamp(-adv_clip, adv_clip).to(torch.float32)


def teaches(advantages: Tensor) -> Tensor:
    """Which of G groups have a member with an advantage, [G] bool of advantages [G, K].

    A group that has none adds nothing to the gradient of the surrogate.
    """
    return advantages.abs().amax(dim=1) > NO_ADVANTAGE


def group_statistics(rewards: Mapping[str, Tensor], valid: Tensor | None = None) -> dict[str, float]:
    """The metrics of one set of groups, by the names under which they are logged.

    - `reward/<name>/mean`: mean over all valid samples.
    - `reward/<name>/std`: population std within a group, averaged over the groups with a valid sample.
    - `reward/<name>/frac_zero_std`: share of groups in which this reward is constant.
    - `group/frac_zero_std`: share of groups in which every reward is constant: they teach nothing.
    - `group/frac_invalid`: share of samples that are not valid.

    Mean and std are absent when no sample is valid. Arguments and errors as in `group_advantages`.
    """
    valid = _check_rewards(rewards, valid)
    statistics: dict[str, float] = {}
    all_constant = torch.ones_like(valid[:, :1])
    occupied = valid.any(dim=1, keepdim=True)
    for name, value in rewards.items():
        moments = _group_moments(value, valid)
        all_constant = all_constant & moments.constant
        if bool(occupied.any()):
            statistics[f"reward/{name}/mean"] = float(value[valid].to(torch.float64).mean())
            statistics[f"reward/{name}/std"] = float(moments.std[occupied].mean())
        statistics[f"reward/{name}/frac_zero_std"] = float(moments.constant.double().mean())
    statistics["group/frac_zero_std"] = float(all_constant.double().mean())
    statistics["group/frac_invalid"] = float((~valid).double().mean())
    return statistics


@dataclass(frozen=True)
class _GroupMoments:
    mean: Tensor
    """[G, 1], float64, over valid samples; 0 where there are none."""
    std: Tensor
    """[G, 1], float64, population std over valid samples."""
    constant: Tensor
    """[G, 1], bool: no difference beyond rounding."""


def _group_moments(value: Tensor, valid: Tensor) -> _GroupMoments:
    value = torch.where(valid, value.detach(), 0.0).to(torch.float64)
    count = valid.sum(dim=1, keepdim=True).clamp(min=1)
    mean = value.sum(dim=1, keepdim=True) / count
    squared = torch.where(valid, (value - mean).square(), 0.0)
    std = (squared.sum(dim=1, keepdim=True) / count).sqrt()
    return _GroupMoments(mean, std, constant=std <= ZERO_STD * mean.abs().clamp(min=1.0))


def _check_rewards(rewards: Mapping[str, Tensor], valid: Tensor | None) -> Tensor:
    """The valid mask [G, K], after the rewards and the mask were checked against each other."""
    if not rewards:
        raise ValueError("rewards is empty, expected at least one reward by name")
    shapes = {name: tuple(value.shape) for name, value in rewards.items()}
    shape = next(iter(shapes.values()))
    if len(shape) != 2 or 0 in shape or any(other != shape for other in shapes.values()):
        raise ValueError(f"rewards have shapes {shapes}, expected the same [G, K] (groups, samples) for all")
    if valid is None:
        valid = torch.ones_like(next(iter(rewards.values())), dtype=torch.bool)
    if valid.dtype != torch.bool or tuple(valid.shape) != shape:
        raise ValueError(
            f"valid is {valid.dtype} of shape {tuple(valid.shape)}, expected bool of shape {shape}"
        )
    for name, value in rewards.items():
        bad = torch.nonzero(valid & ~torch.isfinite(value)).tolist()
        if bad:
            group, sample = bad[0]
            raise ValueError(
                f"reward {name!r} is {float(value[group, sample])} at group {group}, sample {sample} "
                f"({len(bad)} such values) in a sample marked valid; mark failed rewards as not valid"
            )
    return valid


def _normalised_weights(
    rewards: Mapping[str, Tensor], weights: Mapping[str, float] | None
) -> dict[str, float]:
    if weights is None:
        return dict.fromkeys(rewards, 1.0 / len(rewards))
    if set(weights) != set(rewards):
        raise ValueError(
            f"weights are for {sorted(weights)}, expected one for each reward: {sorted(rewards)}"
        )
    total = sum(weights.values())
    if not (all(weight >= 0.0 for weight in weights.values()) and 0.0 < total < float("inf")):
        raise ValueError(f"weights are {dict(weights)}, expected finite numbers >= 0 with a positive sum")
    return {name: weight / total for name, weight in weights.items()}
