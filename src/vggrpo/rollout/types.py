"""What a rollout leaves behind for the reward and for the policy update."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vggrpo.rollout.condition import Condition
from vggrpo.rollout.storage import Rows, StoredRows


@dataclass(frozen=True, eq=False)
class RolloutGroup:
    """K denoising trajectories of one prompt, with the S stochastic steps that are trained.

    Only the steps of the window are kept: state s is the latents at `sigmas[s]`, step s leads to state s + 1.
    """

    prompt_id: str
    seeds: tuple[int, ...]
    """One per member; with the policy and the settings below, it determines the trajectory."""
    latents: Rows
    """[K, C, T_lat, H_lat, W_lat], float32: the clean samples z0, normalised."""
    states: Rows
    """[K, S + 1, C, T_lat, H_lat, W_lat] in the storage dtype: exactly what was stepped from and scored.
    [K, 0, ...] if no step was stochastic."""
    old_log_probs: Tensor
    """[K, S], float32: log-probability (mean over elements) of each step under the policy that drew it."""
    sigmas: tuple[float, ...]
    """The S + 1 noise levels of `states`; empty if no step was stochastic."""
    condition: Condition
    """The prompt, shared by all members, and the guidance."""
    transition: str
    """A name in `vggrpo.flow.TRANSITIONS`."""
    noise_scale: float
    shared_start: bool = False
    """Whether the first state of all members is the same, so that one velocity serves them all there."""

    def __post_init__(self) -> None:
        if self.old_log_probs.ndim != 2:
            raise ValueError(f"old_log_probs has shape {tuple(self.old_log_probs.shape)}, expected [K, S]")
        members, steps = self.group_size, self.num_steps
        stored = steps + 1 if steps else 0
        shapes = {
            "latents": (tuple(self.latents.shape[:1]), (members,)),
            "states": (tuple(self.states.shape), (members, stored, *self.latents.shape[1:])),
            "old_log_probs": (tuple(self.old_log_probs.shape), (members, steps)),
            "sigmas": ((len(self.sigmas),), (stored,)),
        }
        for name, (shape, expected) in shapes.items():
            if shape != expected:
                raise ValueError(
                    f"{name} has shape {shape}, expected {expected} for {members} seeds, {steps} scored steps"
                )

    @property
    def group_size(self) -> int:
        """K."""
        return len(self.seeds)

    @property
    def num_steps(self) -> int:
        """S, the number of stochastic, scored steps."""
        return self.old_log_probs.shape[1]

    def take(self, members: slice) -> "RolloutGroup":
        """The same trajectories of some members only (views, no copies)."""

        def of_members(rows: Rows) -> Rows:
            return rows.take(members) if isinstance(rows, StoredRows) else rows[members]

        return replace(
            self,
            seeds=self.seeds[members],
            latents=of_members(self.latents),
            states=of_members(self.states),
            old_log_probs=self.old_log_probs[members],
        )

    def to(self, device: torch.device | str) -> "RolloutGroup":
        """All tensors on `device`, but those in files. Dtypes are kept: a state must stay what was scored."""

        def moved(rows: Rows) -> Rows:
            return rows if isinstance(rows, StoredRows) else rows.to(device)

        return replace(
            self,
            latents=moved(self.latents),
            states=moved(self.states),
            old_log_probs=self.old_log_probs.to(device),
            condition=self.condition.to(device),
        )
