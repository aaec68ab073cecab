"""How much of a policy gradient is signal: the agreement of the gradients of different prompts.

    python benchmarks/micro/gradient_signal.py [--groups 24] [--rows place] [--quick]

The gradient of one group of rollouts is mostly noise. Its signal s is the mean cosine of two prompts'
gradients: the share of a gradient's squared length that they have in common. n groups together have a
signal of n s / (1 - s) times their noise. All at the base model, where a training starts. Nothing is kept
until the end: an interrupted measurement begins anew.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness.options import TableOptions, chosen_rows, only_seed, parse, run
from harness.results import figure, markdown_table, write_result
from harness.workspace import Workspace
from plots import draw
from torch import Tensor

from vggrpo.config import ConfigError, TrainSettings
from vggrpo.evaluation import Interval
from vggrpo.io import RunFolder
from vggrpo.rollout import RolloutGroup
from vggrpo.training.advantages import group_advantages, group_statistics
from vggrpo.training.models import open_models
from vggrpo.training.policy_gradient import BACKWARDS, FORWARDS, PolicyGradient
from vggrpo.training.rewards import build_rewards
from vggrpo.training.runtime import choose_device, prepare
from vggrpo.training.sources import open_prompts
from vggrpo.training.texts import PromptTexts
from vggrpo.training.trainer import VGGRPOTrainer

NAME = "gradient_signal"
Z95 = 1.96


@dataclass(frozen=True, kw_only=True)
class SignalOptions(TableOptions):
    """Options of the table."""

    seeds: tuple[int, ...] = (0,)
    """The seed of the noises, one."""
    groups: int = 24
    """Groups, one a prompt, whose gradients are compared."""


@dataclass(frozen=True)
class SignalRow:
    """One way to draw a group."""

    group: str
    label: str
    changes: dict[str, Any]


def signal_rows(quick: bool) -> list[SignalRow]:
    """Each differs from one stochastic step at place 2 with noise .5, in which members of a group part."""
    step = {
        "sde_window_start": 0 if quick else 2,
        "sde_window_length": 1,
        "sde_window_moves": "never",
        "sde_window_stop": None,
        "shared_noise": True,
        "noise_scale": 0.5,
        "ode_solver": "unipc",
        "ode_stride": 2,
        "kl_coef": 0.0,
        "off_window_coef": 0.0,
        "prompts_per_rollout": 1,
        "updates_per_rollout": 1,
        "skip_flat_groups": False,
    }
    plain = {"sde_window_start": 0, "sde_window_length": "all", "ode_solver": "euler", "ode_stride": 1}
    first = {"sde_window_start": 0, "sde_window_length": 1 if quick else 3, "noise_scale": 0.3}
    own = {"shared_noise": False}
    camera, reprojection = "reward_weights.camera_motion", "reward_weights.reprojection"
    rows = [
        *(SignalRow("place", f"step {n}", {"sde_window_start": n}) for n in range(2 if quick else 9)),
        *(SignalRow("noise", f"noise {scale:g}", {"noise_scale": scale}) for scale in (0.3, 0.7, 1.0)),
        SignalRow("reward", "camera motion", {reprojection: 0.0}),
        SignalRow("reward", "reprojection", {camera: 0.0}),
        SignalRow("window", "own starting noises", own),
        SignalRow("window", "first steps, noise 0.3", first),
        SignalRow("window", "first steps, noise 0.3, own starting noises", first | own),
        SignalRow("window", "all steps, noise 0.3, own starting noises", plain | own | {"noise_scale": 0.3}),
    ]
    return [SignalRow(row.group, row.label, step | row.changes) for row in rows]


def main(words: list[str] | None = None) -> int:
    """Measures the rows."""
    options = parse(SignalOptions, words, __doc__)
    seed = only_seed(options)
    if options.groups < 3:
        raise ConfigError(f"--groups is {options.groups}: an agreement with an interval needs at least 3")
    workspace = Workspace(options)
    lgm = workspace.lgm()
    prompts = workspace.policy_settings(lgm, NAME).num_prompts
    if prompts is not None and options.groups > prompts and not options.quick:
        raise ConfigError(f"--groups is {options.groups}, but the recipe has {prompts} prompts, one a group")
    rows, measured = chosen_rows(signal_rows(options.quick), options.rows), []
    for row in rows:
        settings = workspace.policy_settings(lgm, NAME, seed, row.changes)
        measured.append({"changes": row.changes, **measure(settings, options.groups)})
        print(f"{row.label}: {figure(measured[-1]['signal'])}", flush=True)
    settings = workspace.policy_settings(lgm, NAME, seed)
    labels = [f"{row.group}: {row.label}" for row in rows]
    figures = {"groups": options.groups, "rows": dict(zip(labels, measured, strict=True))}
    draw(write_result(NAME, options, {"train": settings}, figures, as_text(figures)))
    return 0


def measure(settings: TrainSettings, groups: int) -> dict[str, Any]:
    """The signal of `groups` gradients, and what one costs."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = base_trainer(settings.model_copy(update={"output": Path(folder) / "run"}))
        started = time.monotonic()
        gradients, stds, cost = [], [], 0.0
        for trainer.iteration in range(groups):
            group = trainer.rollout(*trainer.prompts_of_iteration())
            scores = trainer.score([group])
            advantages = group_advantages(
                scores.rewards, trainer.weights, scores.valid, settings.advantage_clip
            )
            gradient, passes = gradient_of(trainer, group, advantages)
            gradients.append(gradient)
            stds.append(group_statistics(scores.rewards, scores.valid))
            cost += passes + trainer.rollout_forwards(group)
        seconds = (time.monotonic() - started) / groups
    return {
        "signal": signal(torch.stack(gradients)),
        "reward_std": {
            name: sum(each[f"reward/{name}/std"] for each in stds) / groups for name in trainer.rewards
        },
        "evaluations": cost / groups,
        "seconds": seconds,
    }


def base_trainer(settings: TrainSettings) -> VGGRPOTrainer:
    """As `vggrpo train` has it before its first iteration."""
    prepare(settings)
    models = open_models(settings, choose_device(settings.device), settings.gradient_checkpointing)
    prompts = open_prompts(settings.prompts, "train", settings.num_prompts)
    run_folder = RunFolder.start(settings.output, settings, resume=False)
    texts = PromptTexts(settings, run_folder, models.policy)
    return VGGRPOTrainer(
        settings,
        run_folder,
        models.policy,
        models.lgm,
        build_rewards(settings.rewards),
        prompts,
        texts.embed(prompts),
        texts.negative,
    )


def gradient_of(trainer: VGGRPOTrainer, group: RolloutGroup, advantages: Tensor) -> tuple[Tensor, float]:
    """Of the policy loss, flat, and the denoiser passes that it took."""
    trainer.optimizer.zero_grad(set_to_none=True)
    gradient = PolicyGradient(
        trainer.settings,
        trainer.policy,
        trainer.iteration,
        trainer.schedule,
        trainer.window(),
        [group],
        [trainer.members(0)],
        advantages,
        lambda: None,
    )
    gradient.add(0)
    parts = [parameter.grad.flatten() for parameter in trainer.parameters if parameter.grad is not None]
    return torch.cat(parts), gradient.figures[FORWARDS] + gradient.figures[BACKWARDS]


def signal(gradients: Tensor) -> Interval:
    """Mean cosine of independent gradients [N, P], with a 95 % interval by the jackknife over them."""
    unit = torch.nn.functional.normalize(gradients.double(), dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(0.0)
    count, total = len(cosines), cosines.sum()
    without = (total - 2 * cosines.sum(dim=1)) / ((count - 1) * (count - 2))
    spread = Z95 * ((count - 1) / count * (without - without.mean()).square().sum()).sqrt().item()
    mean = (total / (count * (count - 1))).item()
    return Interval(mean, mean - spread, mean + spread, count)


def as_text(figures: Mapping[str, Any]) -> str:
    """The table as markdown."""
    header = ["row", "signal of a group", "groups for as much signal as noise", "denoiser evaluations"]
    header += ["s a group", "signal over noise a minute"]
    rows: list[Sequence[str]] = []
    for label, row in figures["rows"].items():
        share = row["signal"].mean
        needed = f"{(1 - share) / share:.0f}" if row["signal"].low > 0 else "-"
        bought = 60 * share / (1 - share) / row["seconds"]
        numbers = [f"{row['evaluations']:.0f}", f"{row['seconds']:.2f}", f"{bought:.2f}"]
        rows.append([label, figure(row["signal"]), needed, *numbers])
    lead = f"Signal: the mean cosine of two prompts' gradients, by {figures['groups']} groups."
    return f"{lead}\n\n{markdown_table(header, rows)}"


if __name__ == "__main__":
    run(main)
