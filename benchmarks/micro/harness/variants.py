"""The rows of the ablations: what each changes in the recipe."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.pairs import ALL
from harness.workspace import RECIPE
from vggrpo.config import LGMSettings, TrainSettings
from vggrpo.io import make_generator
from vggrpo.rollout import RolloutGroup
from vggrpo.training.trainer import VGGRPOTrainer

UNITS_FLOW_THRESHOLD = 0.19
"""Scene units: the recipe's .05 median depths at the world's usual depth of 3.7."""


class ShuffledTrainer(VGGRPOTrainer):
    """The control: every sample gets the advantage of a random other one of its group."""

    def update(self, groups: Sequence[RolloutGroup], advantages: Tensor) -> dict[str, float]:
        """The ordinary update with shuffled advantages [G, K]."""
        generator = make_generator(self.settings.seed, "shuffled advantages", self.iteration)
        order = torch.rand(advantages.shape, generator=generator).argsort(dim=1)
        return super().update(groups, advantages.gather(1, order))


@dataclass(frozen=True)
class PolicyRow:
    """One training that differs from the recipe."""

    group: str
    label: str
    changes: dict[str, Any] = field(default_factory=dict)
    trainer: type[VGGRPOTrainer] = VGGRPOTrainer
    kind: str = ALL
    """The kind of prompt that it is measured on."""
    negated: bool = False
    """Whether what training added to the base model's weights is subtracted instead."""

    @property
    def name(self) -> str:
        """Of its runs."""
        return run_name(self.group, self.label)


def policy_rows(recipe: TrainSettings) -> list[PolicyRow]:
    """All rows, the recipe's own value among those of each group.

    The gate of a latent geometry model is about the recipe's reward options, so rows with others train
    without it. Every group size has as many samples an iteration as the recipe.
    """
    motion, reprojection = "rewards.camera_motion", "rewards.reprojection"
    samples = recipe.group_size * recipe.prompts_per_rollout
    rows = [
        PolicyRow("rewards", "both"),
        PolicyRow("rewards", "camera motion", {"reward_weights.reprojection": 0.0}),
        PolicyRow("rewards", "reprojection", {"reward_weights.camera_motion": 0.0}),
        PolicyRow("reprojection_error", "relative"),
        PolicyRow(
            "reprojection_error",
            "absolute",
            {
                f"{reprojection}.relative": False,
                f"{reprojection}.flow_threshold": UNITS_FLOW_THRESHOLD,
                "lgm_floor": 0.0,
            },
        ),
        *(
            PolicyRow("camera_motion_order", order, {f"{motion}.order": order, "lgm_floor": 0.0})
            for order in ("acceleration", "jerk")
        ),
        PolicyRow("dynamic_filter", "on", kind="dynamic"),
        PolicyRow(
            "dynamic_filter",
            "off",
            {f"{reprojection}.dynamic_filter": False, "lgm_floor": 0.0},
            kind="dynamic",
        ),
    ]
    for size in (8, 16, 32, 64):
        batch = min(recipe.rollout_batch, size // recipe.updates_per_rollout)
        sizes = {"group_size": size, "prompts_per_rollout": max(1, samples // size)}
        rows.append(
            PolicyRow("group_size", str(size), {**sizes, "rollout_batch": batch, "update_batch": batch})
        )
    rows += [PolicyRow("noise_scale", f"{scale:g}", {"noise_scale": scale}) for scale in (0.3, 0.5, 0.7)]
    rows += [PolicyRow("kl_coef", f"{beta:g}", {"kl_coef": beta}) for beta in (0.0, 0.004, 0.05)]
    return rows


def control_rows() -> list[PolicyRow]:
    """The recipe, and what its gains are held against."""
    return [
        PolicyRow("control", "recipe"),
        PolicyRow("control", "shuffled advantages", trainer=ShuffledTrainer),
        PolicyRow("control", "negated LoRA", negated=True),
    ]


@dataclass(frozen=True)
class LGMRow:
    """One latent geometry model that differs from the recipe's."""

    group: str
    label: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Empty for the recipe itself."""

    @property
    def name(self) -> str:
        """Of its runs."""
        return run_name(self.group, self.label) if self.changes else RECIPE


def lgm_rows(recipe: LGMSettings, searched: str, points: Sequence[str]) -> list[LGMRow]:
    """All rows; every data mixture has as many clips in all as the recipe.

    Args:
        recipe: the recipe's settings.
        searched: the stitch point that the recipe's search chose.
        points: all stitch points in the model's order.
    """
    clips = recipe.real_clips + recipe.generated_clips
    ends = [("first", points[0]), ("last", points[-1])]
    return [
        LGMRow("stitch", f"{searched}, by search"),
        *(
            LGMRow("stitch", f"{point}, {place}", {"stitch_point": point})
            for place, point in ends
            if point != searched
        ),
        LGMRow("connector_rate", f"{recipe.connector_lr_scale:.2g}"),
        LGMRow("connector_rate", "1", {"connector_lr_scale": 1.0}),
        LGMRow("data", "real and generated"),
        LGMRow("data", "real", {"real_clips": clips, "generated_clips": 0}),
        LGMRow("data", "generated", {"real_clips": 0, "generated_clips": clips}),
        LGMRow("trainable", "LoRA"),
        LGMRow("trainable", "full", {"trainable": "full"}),
        LGMRow("trainable", "full, a tenth of the rate", {"trainable": "full", "lr": recipe.lr / 10}),
    ]


def run_name(group: str, label: str) -> str:
    """Of the runs of a row, fit for a folder."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", f"{group}-{label}")
