"""Values that are not finite are named, by tensor and sample, before they can reach the weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vggrpo.rollout import NonFiniteError

SKIP = "Look for the cause there, or leave such samples out with --skip-nonfinite"
LOWER = "Lower the learning rate, or resume from an earlier checkpoint"


@contextmanager
def naming_samples(iteration: int, prompt_id: str, members: Sequence[int], remedy: str) -> Iterator[None]:
    """Says of a `NonFiniteError` within the context which samples it is about.

    Args:
        iteration: iterations done.
        prompt_id: of the group.
        members: of the group, by their place in the batch that the error counts in.
        remedy: a sentence.

    Raises:
        FloatingPointError: naming the tensor, the prompt and the members.
    """
    try:
        yield
    except NonFiniteError as error:
        samples = ", ".join(str(members[place]) for place in error.samples)
        raise FloatingPointError(
            f"{error} (prompt {prompt_id}, sample {samples} of its group, iteration {iteration + 1}). "
            f"The weights were not updated with it. {remedy}"
        ) from error


def blame(**parts: Tensor | None) -> list[int]:
    """The samples of a batch in which one of the parts [B] of its loss is not finite; all if none is."""
    given = [part.detach() for part in parts.values() if part is not None]
    finite = torch.stack([torch.isfinite(part).to(given[0].device) for part in given]).all(dim=0)
    return (~finite).nonzero().flatten().tolist() or list(range(len(finite)))


def broken_gradient(parameters: Mapping[str, nn.Parameter]) -> str | None:
    """The name of a parameter whose gradient is not finite; None if there is none."""
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    if bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients.values()))):
        return None
    broken = [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())]
    return broken[0] if broken else "all parameters together"


def left_out(
    rewards: Mapping[str, Tensor],
    valid: Tensor,
    finite: Tensor,
    prompt_ids: Sequence[str],
    iteration: int,
    skip: bool,
) -> Tensor:
    """Which samples [G, K] are left out because they, or a reward of them, are not finite.

    A reward that says of itself that it failed is not valid, and no matter here.

    Args:
        rewards: by name, [G, K] each.
        valid: [G, K] bool, by the rewards' own account.
        finite: [G, K] bool: the trajectory is, by its log-probabilities.
        prompt_ids: of the groups.
        iteration: iterations done.
        skip: leave them out, instead of raising.

    Raises:
        FloatingPointError: naming the value, its prompt and its sample; with `skip`, if nothing is
            left.
    """
    broken = ~finite
    found = {"log-probability of its rollout": (~finite, torch.where(finite, 0.0, torch.nan))}
    for name, value in rewards.items():
        found[f"reward {name}"] = (valid & ~torch.isfinite(value), value)
    for name, (places, value) in found.items():
        if bool(places.any()) and not skip:
            group, sample = places.nonzero()[0].tolist()
            raise FloatingPointError(
                f"the {name} is {float(value[group, sample])} and not marked as failed (prompt "
                f"{prompt_ids[group]}, sample {sample} of its group, iteration {iteration + 1}; "
                f"{int(places.sum())} such values). The weights were not updated with it. {SKIP}"
            )
        broken = broken | places
    if bool(broken.all()):
        raise FloatingPointError(
            f"no sample of iteration {iteration + 1} is finite: skip_nonfinite leaves nothing to train on. "
            f"The weights were not updated. {LOWER}"
        )
    return broken
