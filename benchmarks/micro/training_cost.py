"""What the same held-out reward costs: the paper's plain setting, each saving alone, all of them together.

    python benchmarks/micro/training_cost.py [--rows plain all] [--seeds 0 1 2] [--quick]

The target is a share of what the plain trainings gain at their end on unseen captions, by the latent geometry
model. Every training is charged up to the first evaluation that reaches it. There the teacher judges the
decoded videos, which no training has seen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from harness.options import TableOptions, chosen_rows, parse, run
from harness.pairs import Pairs
from harness.results import figure, markdown_table, write_result
from harness.workspace import PolicyRun, Workspace
from plots import draw

from vggrpo.config import TrainSettings
from vggrpo.evaluation import EvaluationRecords, Interval, weighted_reward
from vggrpo.io import read_records
from vggrpo.io.runs import METRICS_NAME
from vggrpo.training.align import evaluations_so_far
from vggrpo.training.policy_gradient import BACKWARDS, FORWARDS

NAME = "training_cost"
PLAIN, ALL, LEASHED = "plain", "all", "all_leashed"
TARGET_SHARE = 0.8
"""Of the plain setting's gain at its end."""
BAR = 0.4
"""All savings together may take at most this share of the plain setting's denoiser evaluations."""
LGM, TEACHER = "lgm/reward", "teacher/reward"
"""The rewards' weighted mean, by either judge."""
CHECKS = {"flow_jerk": (0.0, 1.05), "camera_extent": (0.9, math.inf), "sharpness": (0.95, 1.05)}
"""Independent checks, and what is no loss: the range of their ratio to the plain setting's."""
PHASES = ("rollout", "score", "update")


@dataclass(frozen=True)
class CostRow:
    """One way to train."""

    group: str
    changes: dict[str, Any]
    """In the plain setting."""

    @property
    def name(self) -> str:
        """Of its runs."""
        return f"cost-{self.group}"


def cost_rows(recipe: TrainSettings, quick: bool) -> list[CostRow]:
    """The plain setting, then what differs from it.

    All have the recipe's bfloat16, but for the row that says what that spares. No setting needs the
    autoencoder or the text encoder while it trains. A prefix can be shared, and the ODE be of higher order,
    only outside a window: those rows have one too.
    With all savings one step is stochastic, where the recipe has it, in which members part from a shared
    prefix: one pass serves them. The last row also holds the policy to the base model at low noise, as the
    recipe does.
    """
    plain = {
        "sde_window_start": 0,
        "sde_window_length": "all",
        "sde_window_moves": "never",
        "sde_window_stop": None,
        "shared_noise": False,
        "ode_solver": "euler",
        "ode_stride": 1,
        "skip_flat_groups": False,
        "noise_scale": 0.3,
        "kl_coef": 0.05,
        "off_window_coef": 0.0,
        "off_window_sigma": 1.0,
        "off_window_members": 0,
        "ema_decay": 0.8,
        "reward_weights.camera_motion": 0.67,
        "reward_weights.reprojection": 0.33,
        "eval_every": 1 if quick else 4,
    }
    if not quick:
        plain |= {"lr": 1.0e-3, "prompts_per_rollout": 4, "iterations": 40, "checkpoint_every": 5}
    window = {"sde_window_length": 1 if quick else 3}
    prefix = {"sde_window_start": 1, "shared_noise": True}
    higher_order = {"ode_solver": "unipc", "ode_stride": 2}
    parting = {
        "sde_window_start": 1,
        "sde_window_length": 1,
        "shared_noise": True,
        "noise_scale": recipe.noise_scale,
    }
    if not quick:
        names = ("sde_window_start", "sde_window_stop", "sde_window_moves")
        parting |= {name: getattr(recipe, name) for name in names} | {"iterations": 12}
    together = plain | parting | higher_order | {"kl_coef": 0.0, "skip_flat_groups": True}
    leash = {
        name: getattr(recipe, name) for name in ("off_window_coef", "off_window_sigma", "off_window_members")
    }
    return [
        CostRow(PLAIN, plain),
        CostRow("window", plain | window),
        CostRow("sliding_window", plain | window | {"sde_window_moves": "slides", "sde_window_stay": 3}),
        CostRow("shared_prefix", plain | window | prefix),
        CostRow("no_reference", plain | {"kl_coef": 0.0}),
        CostRow("skip_flat_groups", plain | {"skip_flat_groups": True}),
        CostRow("float32", plain | {"precision": "float32"}),
        CostRow("higher_order", plain | window | higher_order),
        CostRow(ALL, together),
        CostRow(LEASHED, together | leash),
    ]


@dataclass(frozen=True)
class Training:
    """The held-out records of one training and what its iterations cost."""

    seed: int
    iterations: list[int]
    """Of the evaluations; the first is that of the base model."""
    records: list[EvaluationRecords]
    metrics: list[dict[str, Any]]
    """Of the iterations."""

    @classmethod
    def of(cls, finished: PolicyRun) -> "Training":
        """A finished run's."""
        settings = finished.settings
        weights = {name: weight for name, weight in settings.reward_weights.model_dump().items() if weight}
        evaluated = evaluations_so_far(settings, settings.iterations)
        for one in evaluated:
            for column in (LGM, TEACHER):
                source = column.split("/")[0]
                one.records.columns[column] = weighted_reward(one.records, source, weights).tolist()
        metrics = [line for line in read_records(finished.path / METRICS_NAME) if FORWARDS in line]
        iterations = [one.iteration for one in evaluated]
        return cls(settings.seed, iterations, [one.records for one in evaluated], metrics)

    def gain(self, evaluation: int, column: str = LGM) -> float:
        """Change of the reward up to an evaluation, by its place; by the latent geometry model."""
        change = self.records[evaluation].values(column) - self.records[0].values(column)
        return float(np.nanmean(change))

    def curve(self) -> list[dict[str, float]]:
        """Denoiser evaluations and both judges' gains at every evaluation."""
        return [
            {
                "evaluations": self.spent(place)["evaluations"],
                "lgm": self.gain(place, LGM),
                "teacher": self.gain(place, TEACHER),
            }
            for place in range(len(self.records))
        ]

    def first_at(self, target: float) -> int | None:
        """Place of the first evaluation whose gain reaches the target; None if none does."""
        places = range(1, len(self.records))
        return next((place for place in places if self.gain(place) >= target), None)

    def spent(self, evaluation: int) -> dict[str, float]:
        """What the iterations up to an evaluation cost; held-out evaluation is not counted."""
        done = self.metrics[: self.iterations[evaluation]]
        forwards, backwards = (sum(line[name] for line in done) for name in (FORWARDS, BACKWARDS))
        seconds = sum(line[f"time/{phase}"] for line in done for phase in PHASES)
        return {
            "iterations": len(done),
            "forwards": forwards,
            "backwards": backwards,
            "evaluations": forwards + backwards,
            "seconds": seconds,
        }

    def reward_std(self) -> dict[str, float]:
        """Mean standard deviation of each reward within a group, over the iterations."""
        names = [name for name in self.metrics[0] if name.startswith("reward/") and name.endswith("/std")]
        return {name: float(np.mean([line[name] for line in self.metrics])) for name in names}


def main(words: list[str] | None = None) -> int:
    """Runs the benchmark; 0 whether or not the bar is met."""
    options = parse(TableOptions, words, __doc__)
    workspace = Workspace(options)
    lgm = workspace.lgm()
    recipe = workspace.policy_settings(lgm)
    every = cost_rows(recipe, options.quick)
    rows = chosen_rows(every, options.rows)
    rows = [every[0], *(row for row in rows if row.group != PLAIN)]
    trainings = {
        row.group: [
            Training.of(workspace.train_policy(lgm, row.name, seed, row.changes)) for seed in options.seeds
        ]
        for row in rows
    }
    final = float(np.mean([training.gain(-1) for training in trainings[PLAIN]]))
    target = TARGET_SHARE * final
    # Without a gain there is nothing to reach.
    reached = {
        group: [training.first_at(target) if final > 0 else None for training in found]
        for group, found in trainings.items()
    }
    figures = {
        "plain_gain": final,
        "target": target,
        "bar": BAR,
        "rows": [
            row_figures(row, trainings[row.group], reached[row.group], trainings[PLAIN], reached[PLAIN])
            for row in rows
        ],
    }
    settings = {"train": workspace.policy_settings(lgm, PLAIN, changes=every[0].changes)}
    draw(write_result(NAME, options, settings | {"seeds": options.seeds}, figures, as_text(figures)))
    return 0


def row_figures(
    row: CostRow,
    trainings: Sequence[Training],
    reached: Sequence[int | None],
    plain: Sequence[Training],
    plain_reached: Sequence[int | None],
) -> dict[str, Any]:
    """Everything about one row; means and changes are over the seeds that reached the target."""
    there = [(t, place) for t, place in zip(trainings, reached, strict=True) if place is not None]
    spent = {t.seed: t.spent(place) for t, place in there}
    plain_spent = [
        t.spent(p)["evaluations"] for t, p in zip(plain, plain_reached, strict=True) if p is not None
    ]
    both = [
        (theirs.records[p], ours.records[q])
        for theirs, p, ours, q in zip(plain, plain_reached, trainings, reached, strict=True)
        if p is not None and q is not None
    ]
    deviations = [t.reward_std() for t in trainings]
    result: dict[str, Any] = {
        "group": row.group,
        "changes": row.changes,
        "reached": len(there),
        "seeds": spent,
        "mean": {name: mean_of(spent, name) for name in (*COUNTS, "seconds")},
        "share_of_plain": mean_of(spent, "evaluations") / float(np.mean(plain_spent))
        if plain_spent
        else None,
        "curves": {t.seed: t.curve() for t in trainings},
        "gains_at_the_end": {t.seed: t.gain(-1) for t in trainings},
        "reward_std": {name: float(np.mean([each[name] for each in deviations])) for name in deviations[0]},
        "flat_groups": float(np.mean([line["group/frac_zero_std"] for t in trainings for line in t.metrics])),
    }
    if there:
        from_base = pooled([(t.records[0], t.records[place]) for t, place in there])
        result["gains"] = {name: from_base.change(name) for name in (LGM, TEACHER)}
        result["checks"] = {name: from_base.ratio(name) for name in CHECKS}
    if both:
        against = pooled(both)
        result["teacher_against_plain"] = against.change(TEACHER)
        result["checks_against_plain"] = {name: against.ratio(name) for name in CHECKS}
    return result


COUNTS = ("iterations", "forwards", "backwards", "evaluations")


def mean_of(spent: Mapping[int, Mapping[str, float]], name: str) -> float:
    """Over the seeds; NaN without any."""
    return float(np.mean([costs[name] for costs in spent.values()])) if spent else float("nan")


def pooled(pairs: Sequence[tuple[EvaluationRecords, EvaluationRecords]]) -> Pairs:
    """The pairs of several seeds, each with its own noises, one after another."""
    before, after = EvaluationRecords(), EvaluationRecords()
    for first, second in pairs:
        aligned = Pairs.of(first, [second])
        before.extend(aligned.before)
        after.extend(aligned.after)
    return Pairs(before, after)


def as_text(figures: Mapping[str, Any]) -> str:
    """The table as markdown, and whether the bar is met."""
    header = ["row", "reached", "iterations", "forwards", "backwards", "evaluations", "of plain", "s"]
    header += [
        "reward by the LGM",
        "by the teacher",
        "teacher - plain",
        *(f"{name} ratio" for name in CHECKS),
    ]
    header += ["std in a group", "flat groups"]
    lines = []
    for row in figures["rows"]:
        costs, share = row["mean"], row["share_of_plain"]
        gains, checks = row.get("gains", {}), row.get("checks", {})
        lines.append(
            [
                row["group"].replace("_", " "),
                f"{row['reached']}/{len(row['gains_at_the_end'])}",
                *(whole(costs[name]) for name in COUNTS),
                "-" if share is None else f"{share:.2f}",
                whole(costs["seconds"]),
                *(cell(gains.get(name), signed=True) for name in (LGM, TEACHER)),
                cell(row.get("teacher_against_plain"), signed=True),
                *(cell(checks.get(name)) for name in CHECKS),
                " ".join(f"{value:.3f}" for value in row["reward_std"].values()),
                f"{row['flat_groups']:.2f}",
            ]
        )
    lead = (
        f"Target: {figures['target']:.4f}, {TARGET_SHARE:g} of the plain setting's gain at its end. Costs "
        "are means over the seeds that reached it; evaluations are forward and backward passes of the "
        "denoiser by sample. std in a group: of each reward."
    )
    return "\n\n".join([lead, markdown_table(header, lines), *verdict(figures["rows"])])


def verdict(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the rows with all savings meet the bar; nothing where they were not run."""
    lines = []
    plain = next(row for row in rows if row["group"] == PLAIN)
    for row in rows:
        if row["group"] in (ALL, LEASHED):
            share, judged = row["share_of_plain"], row.get("teacher_against_plain")
            complete = all(one["reached"] == len(one["gains_at_the_end"]) for one in (plain, row))
            cheap = complete and share is not None and share <= BAR
            ratios = row.get("checks_against_plain", {})
            kept = judged is not None and judged.sign >= 0
            whole_checks = bool(ratios) and all(
                low <= ratios[name].mean <= high for name, (low, high) in CHECKS.items()
            )
            words = ["pass" if met else "FAIL" for met in (cheap, kept, whole_checks)]
            lines.append(
                f"{row['group'].replace('_', ' ')}: at most {BAR:g} of plain's evaluations, all seeds of "
                f"both at the target: {words[0]}; not below plain by the teacher: {words[1]}; flow jerk, "
                f"camera extent and sharpness not worse than plain's: {words[2]}."
            )
    return lines


def whole(value: float) -> str:
    """A number without decimals, "-" where there is none."""
    return f"{value:.0f}" if np.isfinite(value) else "-"


def cell(interval: Interval | None, signed: bool = False) -> str:
    """An interval, "-" where there is none."""
    return "-" if interval is None else figure(interval, 3, signed)


if __name__ == "__main__":
    run(main)
