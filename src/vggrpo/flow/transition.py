"""One stochastic denoising step as a Gaussian distribution over the next state."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Transition:
    """N(mean, std^2 I) over the next latents of each sample of a batch."""

    mean: Tensor
    """[B, ...], float32 (float64 for float64 latents). Carries the gradient of the velocity."""
    std: Tensor
    """[B], same dtype and device as `mean`. 0 where the step is deterministic."""

    def __post_init__(self) -> None:
        if self.mean.ndim < 2 or self.std.shape != self.mean.shape[:1]:
            raise ValueError(
                f"std has shape {tuple(self.std.shape)} and mean {tuple(self.mean.shape)}, "
                "expected [B] and [B, ...]"
            )

    def sample(self, generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
        """Draws the next latents [B, ...], without gradient.

        Args:
            generator: one generator for the batch, or one per sample, which makes every sample's noise
                independent of the batch it is drawn in. The noise is drawn on the generators' device.

        Raises:
            ValueError: if there is not exactly one generator per sample.
        """
        mean = self.mean.detach()
        if isinstance(generator, torch.Generator):
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=generator.device)
        else:
            noise = draw_noise(generator, mean.shape[1:], mean.dtype)
            if len(noise) != len(mean):
                raise ValueError(
                    f"generator holds {len(noise)} generators for a batch of {len(mean)} samples"
                )
        return mean + per_sample(self.std.detach(), mean) * noise.to(mean.device)

    def log_prob(self, x_next: Tensor) -> Tensor:
        """Mean over the elements of log N(x_next; mean, std^2), [B].

        The *mean*, not the sum: the clip range of the importance ratio is meant for it, whatever the video's
        size.

        Raises:
            ValueError: if shapes differ, or the step of a sample is deterministic (std 0).
        """
        self._require_noise("log_prob")
        if x_next.shape != self.mean.shape:
            raise ValueError(f"x_next has shape {tuple(x_next.shape)}, expected {tuple(self.mean.shape)}")
        normalised = (x_next.to(self.mean.dtype) - self.mean) / per_sample(self.std, self.mean)
        squared = normalised.square().flatten(1).mean(dim=1)
        return -0.5 * (squared + math.log(2.0 * math.pi)) - self.std.log()

    def kl(self, other: "Transition") -> Tensor:
        """KL(self || other) of two transitions of equal std, as the mean over elements, [B].

        mean((mean - other.mean)^2) / (2 std^2). Differentiable in both means.

        Raises:
            ValueError: if shapes or stds differ, or a std is 0.
        """
        self._require_noise("kl")
        if other.mean.shape != self.mean.shape:
            raise ValueError(
                f"other.mean has shape {tuple(other.mean.shape)}, expected {tuple(self.mean.shape)} as here"
            )
        if not torch.equal(self.std, other.std):
            raise ValueError(
                "kl needs two transitions of the same step and noise_scale, "
                f"but the stds are {self.std.tolist()} and {other.std.tolist()}"
            )
        return (self.mean - other.mean).square().flatten(1).mean(dim=1) / (2.0 * self.std.square())

    def _require_noise(self, what: str) -> None:
        deterministic = torch.nonzero(self.std <= 0).flatten().tolist()
        if deterministic:
            raise ValueError(
                f"{what} is undefined for a deterministic transition: std is 0 for samples {deterministic}; "
                "score only steps with noise_scale > 0 that do not end in sigma 0"
            )


def draw_noise(
    generators: Sequence[torch.Generator], shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal noise [B, *shape]; row i comes from `generators[i]` alone."""
    return torch.stack(
        [torch.randn(tuple(shape), generator=g, dtype=dtype, device=g.device) for g in generators]
    )


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """[B] values as [B, 1, ...] that broadcast over `like` [B, ...], in its dtype and on its device."""
    return values.to(device=like.device, dtype=like.dtype).reshape(-1, *([1] * (like.ndim - 1)))
