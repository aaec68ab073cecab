"""The clipped policy-gradient loss with a KL leash to the reference policy."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PolicyLoss:
    """A loss to minimise and what it was made of, of which only `loss` carries a gradient."""

    loss: Tensor
    surrogate: Tensor
    """Mean of min( rho A, clip(rho) A ): the objective without the KL term."""
    ratio_mean: Tensor
    ratio_deviation: Tensor
    """max |rho - 1|: zero up to rounding before the first update."""
    clip_frac: Tensor
    """Share of the steps whose gradient the clip has cut off."""
    approx_kl: Tensor
    """mean( rho - 1 - log rho ), an estimate of KL(old policy || policy) per element of the latents."""
    kl: Tensor
    """Mean of the given KL to the reference policy; 0 if none was given."""
    ratio: Tensor
    """rho of each sample (and step), as `log_prob`."""
    clipped: Tensor
    """bool, likewise: whether the clip has cut the gradient off."""

    def metrics(self) -> dict[str, float]:
        """The numbers by the names under which they are logged."""
        return {
            "policy/loss": float(self.loss.detach()),
            "policy/surrogate": float(self.surrogate),
            "policy/ratio_mean": float(self.ratio_mean),
            "policy/ratio_deviation": float(self.ratio_deviation),
            "policy/clip_frac": float(self.clip_frac),
            "policy/approx_kl": float(self.approx_kl),
            "policy/kl": float(self.kl),
        }


def policy_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    clip_eps: float,
    kl: Tensor | None = None,
    kl_coef: float = 0.0,
) -> PolicyLoss:
    """Clipped surrogate and KL penalty, averaged over samples and steps (Flow-GRPO, arXiv 2505.05470).

        loss = - mean( min( rho A, clip(rho, 1 - eps, 1 + eps) A ) ) + kl_coef * mean( kl )
        rho = exp( log_prob - old_log_prob )

    Args:
        log_prob: [N] or [N, S] (samples, steps), of the current policy, with gradient.
        old_log_prob: same shape, of the policy that drew the samples. No gradient flows into it.
        advantages: [N], one per sample, shared by its steps; or [N, S], one per step. No gradient flows into
            them.
        clip_eps: half-width of the clip range around ratio 1, positive.
        kl: same shape as `log_prob`, KL(policy || reference) per sample and step, with gradient.
        kl_coef: weight of `kl`, >= 0. With 0, `kl` is only reported.

    Raises:
        ValueError: for shapes that do not fit, or a `kl_coef` without `kl`.
    """
    if not (math.isfinite(clip_eps) and clip_eps > 0.0):
        raise ValueError(f"clip_eps is {clip_eps}, expected a positive number such as 1e-3")
    if not (math.isfinite(kl_coef) and kl_coef >= 0.0):
        raise ValueError(f"kl_coef is {kl_coef}, expected a finite number >= 0")
    if kl_coef > 0.0 and kl is None:
        raise ValueError(
            f"kl_coef is {kl_coef}, but kl is None; pass the KL to the reference policy, or kl_coef=0"
        )
    _check_shapes(log_prob, old_log_prob, advantages, kl)

    advantages = advantages.detach().to(log_prob.dtype)
    if advantages.ndim < log_prob.ndim:
        advantages = advantages.unsqueeze(-1)
    log_ratio = log_prob - old_log_prob.detach()
    ratio = log_ratio.exp()
    surrogate = torch.minimum(
        ratio * advantages, ratio.clamp(1.0 - clip_eps, 1.0 + clip_eps) * advantages
    ).mean()
    loss = -surrogate
    if kl is not None and kl_coef > 0.0:
        loss = loss + kl_coef * kl.mean()

    with torch.no_grad():
        clipped = ((ratio > 1.0 + clip_eps) & (advantages > 0.0)) | (
            (ratio < 1.0 - clip_eps) & (advantages < 0.0)
        )
        return PolicyLoss(
            loss=loss,
            surrogate=surrogate.detach(),
            ratio_mean=ratio.mean(),
            ratio_deviation=(ratio - 1.0).abs().max(),
            clip_frac=clipped.to(ratio.dtype).mean(),
            approx_kl=(torch.expm1(log_ratio) - log_ratio).mean(),
            kl=torch.zeros_like(loss) if kl is None else kl.detach().mean(),
            ratio=ratio.detach(),
            clipped=clipped,
        )


def _check_shapes(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, kl: Tensor | None) -> None:
    shape = tuple(log_prob.shape)
    if len(shape) not in (1, 2) or 0 in shape:
        raise ValueError(f"log_prob has shape {shape}, expected [N] or [N, S] (samples, steps)")
    for name, tensor in (("old_log_prob", old_log_prob), ("kl", kl)):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape} as log_prob")
    if tuple(advantages.shape) not in (shape, shape[:1]):
        expected = " or ".join(str(allowed) for allowed in dict.fromkeys((shape[:1], shape)))
        raise ValueError(f"advantages has shape {tuple(advantages.shape)}, expected {expected}")
