"""What a sample is conditioned on: prompt embeddings and classifier-free guidance."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.backbones.base import VideoBackbone


class NonFiniteError(FloatingPointError):
    """A value of some samples is not finite: the policy's weights or their latents diverged."""

    def __init__(self, what: str, samples: Sequence[int]) -> None:
        """`what` is not, of the samples with these places in the batch."""
        super().__init__(f"{what} is not finite")
        self.samples = list(samples)


@dataclass(frozen=True, eq=False)
class Condition:
    """Prompt embeddings of a batch, with guidance; a `cfg_scale` of 1 is none and drops the negative one."""

    prompt_embeds: Tensor
    """[L, D], shared by every sample; or [N, L, D], one per sample."""
    negative_prompt_embeds: Tensor | None = None
    """[L, D], needed unless `cfg_scale` is 1."""
    cfg_scale: float = 1.0

    def __post_init__(self) -> None:
        shape, negative = tuple(self.prompt_embeds.shape), self.negative_prompt_embeds
        if len(shape) not in (2, 3):
            raise ValueError(f"prompt_embeds has shape {shape}, expected [L, D] or one per sample, [N, L, D]")
        if self.cfg_scale == 1.0:
            object.__setattr__(self, "negative_prompt_embeds", None)
        elif negative is None:
            raise ValueError(
                f"cfg_scale is {self.cfg_scale}, which needs negative_prompt_embeds (or use cfg_scale=1)"
            )
        elif tuple(negative.shape) != shape[-2:]:
            raise ValueError(
                f"negative_prompt_embeds has shape {tuple(negative.shape)}, expected {shape[-2:]} as a prompt"
            )

    @property
    def device(self) -> torch.device:
        """Where the embeddings are, and so where the policy runs."""
        return self.prompt_embeds.device

    @property
    def passes(self) -> int:
        """Forward passes of the denoiser for one velocity."""
        return 1 if self.cfg_scale == 1.0 else 2

    def take(self, members: slice | Tensor) -> "Condition":
        """The condition of some samples; the same object where the samples share one prompt."""
        if self.prompt_embeds.ndim == 2:
            return self
        return Condition(self.prompt_embeds[members], self.negative_prompt_embeds, self.cfg_scale)

    def to(self, device: torch.device | str) -> "Condition":
        """The same condition on `device`."""
        negative = self.negative_prompt_embeds
        return Condition(
            self.prompt_embeds.to(device), None if negative is None else negative.to(device), self.cfg_scale
        )

    def velocity(self, policy: VideoBackbone, x: Tensor, sigma: float, require_finite: bool = True) -> Tensor:
        """The policy's guided velocity [B, ...] at latents `x` [B, ...] and level `sigma`.

        Raises:
            NonFiniteError: if it is not finite, unless that is not required.
        """
        negative = self.negative_prompt_embeds
        velocity = policy.velocity(
            x,
            sigma,
            self.prompt_embeds.expand(len(x), -1, -1),
            None if negative is None else negative.expand(len(x), -1, -1),
            self.cfg_scale,
        )
        if require_finite:
            broken = ~torch.isfinite(velocity).flatten(1).all(dim=1)
            if bool(broken.any()):
                samples = broken.nonzero().flatten().tolist()
                raise NonFiniteError(f"the policy's velocity at sigma {sigma:.6g}", samples)
        return velocity
