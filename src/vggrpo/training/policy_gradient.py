"""The gradient of a policy update: the objective over an iteration's rollouts, backpropagated piece by piece.

Pieces add up to the mean over groups, members and steps, so any batch and any number of ranks has the same
gradient, up to the order of float32 sums.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from vggrpo.backbones import VideoBackbone
from vggrpo.config import ConfigError, TrainSettings
from vggrpo.flow import SigmaSchedule
from vggrpo.io import derive_seed
from vggrpo.rollout import NonFiniteError, RolloutGroup, off_window_distance, rescore, shares_state
from vggrpo.training.advantages import teaches
from vggrpo.training.finite import LOWER, blame, broken_gradient, naming_samples
from vggrpo.training.histograms import UpdateHistograms
from vggrpo.training.losses import PolicyLoss, policy_loss

RATIO_TOLERANCE = 1e-6
"""How far the ratio may be from 1 before the first update on a rollout: float32 rounding."""
FORWARDS, BACKWARDS = "cost/denoiser_forwards", "cost/denoiser_backwards"
SKIPPED = "policy/skipped"
LOST = {"policy/": "lost/steps", "policy/off_window": "lost/leash"}
"""Share of the objective's weight that was skipped, by what the names of its figures start with."""
LARGEST = frozenset({"policy/ratio_deviation"})
"""Figures of a loss that are maxima; the others are means."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Members of a group that go through the denoiser together."""

    slot: int
    """Of the group, in its iteration."""
    group: RolloutGroup
    """With this rank's members."""
    rows: slice
    """Places of the piece's members in `group`."""
    members: list[int]
    """Their numbers among the members of all ranks."""
    again: bool = False
    """Whether it is part of a larger one that was not finite."""

    @property
    def passes(self) -> int:
        """Forward passes of the denoiser for one velocity of each."""
        return len(self.members) * self.group.condition.passes

    def passes_at(self, step: int) -> int:
        """The same for their states at a step of the window, of which they may share the first."""
        return self.group.condition.passes if shares_state(self.group, step) else self.passes

    def one_by_one(self) -> Iterator["Piece"]:
        """A piece for each member."""
        for place, member in enumerate(self.members):
            row = self.rows.start + place
            yield replace(self, rows=slice(row, row + 1), members=[member], again=True)


class PolicyGradient:
    """The gradients of one set of rollouts, and the figures of their pieces.

    Args:
        settings: of the run.
        policy: whose parameters get the gradient.
        iteration: iterations done.
        schedule: of the rollouts.
        window: (start, length) of their stochastic steps.
        groups: the rollouts, each with this rank's members.
        members: their numbers among the members of all ranks, by group, ascending.
        advantages: [G, K], of the members of all ranks.
        on_pass: called before the passes of each piece.
        lockstep: whether ranks make their forward passes together.
    """

    def __init__(
        self,
        settings: TrainSettings,
        policy: VideoBackbone,
        iteration: int,
        schedule: SigmaSchedule,
        window: tuple[int, int],
        groups: Sequence[RolloutGroup],
        members: Sequence[list[int]],
        advantages: Tensor,
        on_pass: Callable[[], None],
        lockstep: bool = False,
    ) -> None:
        self.settings, self.policy, self.iteration = settings, policy, iteration
        self.groups, self.members, self.advantages, self.on_pass = groups, members, advantages, on_pass
        start, length = window
        self.levels_outside = levels_outside(settings, schedule)
        self.share = settings.group_size // settings.updates_per_rollout
        """Members of a group in one update."""
        self.leashed = settings.off_window_members or self.share
        """How many of them are held to the base model outside the window."""
        self.counted = torch.ones(len(groups), dtype=torch.bool)
        if settings.skip_flat_groups:
            self.counted = teaches(advantages)
        # Groups that do not count add nothing to the gradient, and the figures are means over the others.
        counted = int(self.counted.sum())
        self.scale = len(groups) / max(counted, 1) / settings.updates_per_rollout
        self.figures: dict[str, float] = defaultdict(float, {FORWARDS: 0.0, BACKWARDS: 0.0})
        """This rank's part of the metrics that are means or sums, over all updates so far."""
        self.largest: dict[str, float] = {}
        """Of those that are maxima."""
        self.histograms = UpdateHistograms(settings.clip_eps, start, length)
        # Ranks that make their forward passes together cannot repeat one of them alone.
        self.skips = settings.skip_nonfinite and not lockstep

    def add(self, number: int) -> tuple[int, int]:
        """Adds this rank's part of the gradient of update `number`, which is on its share of every group.

        Returns:
            How many losses, of one member each, are in it, and how many were skipped.

        Raises:
            FloatingPointError: if a loss or gradient is not finite (and not to be skipped), or the policy is
                not the one that drew the rollouts before the first update on them.
        """
        added, before = 0, self.figures[SKIPPED]
        for piece in self._pieces(number):
            weight = self.scale / (self.share * len(self.groups) * piece.group.num_steps)
            for step in range(piece.group.num_steps):
                add = partial(self._add_step, step=step, number=number)
                added += self._add(piece, add, LOST["policy/"], weight)
        if self.settings.off_window_coef:
            weight = self.scale / (self.leashed * len(self.groups))
            for piece in self._pieces(number, self.leashed):
                add = partial(self._add_leash, number=number)
                added += self._add(piece, add, LOST["policy/off_window"], weight)
        return added, int(self.figures[SKIPPED] - before)

    def _add(self, piece: Piece, add: Callable[[Piece], None], lost: str, weight: float) -> int:
        """Adds the gradient of a piece, where that is to be skipped without the members for which it is not
        finite; the number of the others. A member has a weight in the figures, lost if it is skipped.
        """
        self.on_pass()
        if not self.skips:
            with naming_samples(self.iteration, piece.group.prompt_id, piece.members, LOWER):
                add(piece)
            return len(piece.members)
        parameters = self.policy.trainable_parameters().values()
        before = [None if p.grad is None else p.grad.clone() for p in parameters]
        try:
            add(piece)
        except NonFiniteError:
            for parameter, gradient in zip(parameters, before, strict=True):
                parameter.grad = gradient
        else:
            return len(piece.members)
        if len(piece.members) == 1:
            self.figures[SKIPPED] += 1
            self.figures[lost] += weight
            return 0
        return sum(self._add(one, add, lost, weight) for one in piece.one_by_one())

    def _pieces(self, number: int, most: int | None = None) -> Iterator[Piece]:
        """This rank's share of the members of update `number`, of every group that counts.

        Args:
            number: of the update.
            most: how many of its members of each group, the first; all by default.
        """
        size, first = self.settings.update_batch, number * self.share
        stop_at = first + (self.share if most is None else most)
        for slot, group in enumerate(self.groups):
            if not self.counted[slot]:
                continue
            own = self.members[slot]
            # The group holds this rank's members, in their order: those of the update are a run of them.
            start, stop = bisect_left(own, first), bisect_left(own, stop_at)
            for i in range(start, stop, size):
                rows = slice(i, min(i + size, stop))
                yield Piece(slot, group, rows, own[rows])

    def _add_step(self, piece: Piece, step: int, number: int) -> None:
        """The clipped loss of one step of the window."""
        settings, group = self.settings, piece.group
        weight = len(piece.members) / (self.share * len(self.groups) * group.num_steps)
        advantages = self.advantages[piece.slot][piece.members]
        loss = step_loss(
            self.policy, group, step, piece.rows, advantages, settings.clip_eps, settings.kl_coef
        )
        self._backpropagate(weight * loss.loss, piece, piece.passes_at(step))
        if number == 0 and not piece.again:  # another batch than the rollout's may round otherwise
            check_on_policy(loss, self.iteration)
        for name, value in loss.metrics().items():
            if name in LARGEST:
                self.largest[name] = max(self.largest.get(name, value), value)
            else:
                self.figures[name] += self.scale * weight * value
        self.histograms.add(step, loss)
        self.figures[FORWARDS] += piece.passes_at(step) * (2 if settings.kl_coef else 1)

    def _add_leash(self, piece: Piece, number: int) -> None:
        """The distance to the base model outside the window, at one level for each group in an update."""
        group, levels = piece.group, self.levels_outside
        # A function of the update, not of the piece: any number of ranks and any batch has the same.
        stream = (self.settings.seed, "off-window", self.iteration, number, piece.slot)
        level = levels[derive_seed(*stream) % len(levels)]
        weight = len(piece.members) / (self.leashed * len(self.groups))
        distance = off_window_distance(self.policy, group, level, piece.rows)
        self._backpropagate(weight * self.settings.off_window_coef * distance, piece, piece.passes)
        self.figures["policy/off_window"] += self.scale * (weight * distance.item())
        self.figures[FORWARDS] += 2 * piece.passes

    def _backpropagate(self, loss: Tensor, piece: Piece, passes: int) -> None:
        """Raises NonFiniteError if a gradient is not finite."""
        loss.backward()
        broken = broken_gradient(self.policy.trainable_parameters())
        if broken is not None:
            raise NonFiniteError(f"the gradient of {broken}", range(len(piece.members)))
        self.figures[BACKWARDS] += passes


def means(figures: dict[str, float], skips: bool) -> dict[str, float]:
    """The metrics of an update from the sums of all ranks' figures: means over what was not skipped."""
    lost = {start: figures.pop(name, 0.0) for start, name in LOST.items()}
    skipped = figures.pop(SKIPPED, 0.0)
    metrics = {SKIPPED: skipped} if skips else {}
    for name, total in figures.items():
        share = 1.0 - lost.get(name, lost["policy/"]) if name.startswith("policy/") else 1.0
        if share > 0.0:
            metrics[name] = total / share
    return metrics


def levels_outside(settings: TrainSettings, schedule: SigmaSchedule) -> list[float]:
    """The noise levels at which `off_window_coef` may hold a policy to the base model.

    Raises:
        ConfigError: if it should, but there are none.
    """
    outside = [s for step, (s, _) in enumerate(schedule.steps()) if step not in settings.trained_steps]
    below = [sigma for sigma in outside if sigma < settings.off_window_sigma]
    if settings.off_window_coef and not below:
        raise ConfigError(
            f"off_window_sigma is {settings.off_window_sigma:g}, but the lowest noise level outside the "
            f"window is {min(outside):.3g}: raise it, or set off_window_coef to 0"
        )
    return below


def step_loss(
    policy: VideoBackbone,
    group: RolloutGroup,
    step: int,
    members: slice,
    advantages: Tensor,
    clip_eps: float,
    kl_coef: float,
) -> PolicyLoss:
    """The clipped loss of one denoising step of some members with advantages [B].

    Raises:
        NonFiniteError: if it is not finite; its samples are places among these members.
    """
    current = rescore(policy, group, step, members)
    kl = None
    if kl_coef:
        with torch.no_grad(), policy.lora_disabled():
            reference = rescore(policy, group, step, members)
        kl = current.transition.kl(reference.transition)
    log_prob, old_log_prob = current.log_prob, group.old_log_probs[members, step]
    # A member that was left out has advantage 0; with ratio 1 and KL 0 it adds nothing at all.
    there = torch.isfinite(old_log_prob)
    if not bool(there.all()):
        log_prob, old_log_prob = (torch.where(there, value, 0.0) for value in (log_prob, old_log_prob))
        kl = None if kl is None else torch.where(there, kl, 0.0)
    loss = policy_loss(log_prob, old_log_prob, advantages.to(log_prob.device), clip_eps, kl, kl_coef)
    if not bool(torch.isfinite(loss.loss)):
        raise NonFiniteError("the policy loss", blame(log_prob=log_prob, advantages=advantages, kl=kl))
    return loss


def check_on_policy(loss: PolicyLoss, iteration: int) -> None:
    """Before the first update on a rollout the policy is the one that drew it; before all updates, the base.

    Raises:
        FloatingPointError: if the ratio is not 1, or the KL not 0.
    """
    deviation, kl = loss.ratio_deviation.item(), loss.kl.item()
    if deviation > RATIO_TOLERANCE:
        raise FloatingPointError(
            f"before the first update on a rollout the ratio is off by {deviation:.2g} (at most "
            f"{RATIO_TOLERANCE:.0e} is rounding): the policy does not score its own samples as it drew "
            "them. Use precision float32"
        )
    if iteration == 0 and kl > 0:
        raise FloatingPointError(
            f"before the first update the KL to the base model is {kl:.2g}, not 0: the LoRA does not "
            "start as zero"
        )
