"""VGGRPO on the micro family: what the recipe does to held-out samples, and whether it meets the bars.

    python benchmarks/micro/main_result.py [--seeds 0 1 2] [--quick]

64 unseen captions x 2 noises, by ODE in 50 steps and by the training's own sampler, paired with the base
model; beside them, as curves, the trainings' own evaluations, which are on other captions and by fewer steps.
"""

from collections.abc import Mapping

from harness.checks import Check, check_table, checks
from harness.curves import held_out_curve
from harness.options import Options, parse, run
from harness.pairs import Change, Policies, changes, kinds
from harness.results import figure, markdown_table, write_result
from harness.workspace import Workspace
from harness.yardstick import BASE, Yardstick
from plots import draw

from vggrpo.evaluation import EvaluationRecords, Sampler, describe

NAME = "main_result"
CURVES = (
    *("lgm/camera_motion", "teacher/camera_motion", "lgm/reprojection", "teacher/reprojection"),
    "flow_jerk",
)
Measured = Mapping[str, tuple[EvaluationRecords, Policies]]
"""By sampler: the base model's records, and the policies'."""


def main(words: list[str] | None = None) -> int:
    """Runs the benchmark; 0 whether or not the bars are met."""
    options = parse(Options, words, __doc__)
    workspace = Workspace(options)
    lgm = workspace.lgm()
    runs = {seed: workspace.train_policy(lgm, seed=seed) for seed in options.seeds}
    yardstick = Yardstick(workspace, lgm)
    measured: dict[str, tuple[EvaluationRecords, Policies]] = {}
    samplers: dict[Sampler, int] = {"ode": yardstick.steps, "sde": yardstick.train_steps}
    for sampler, steps in samplers.items():
        base = yardstick.measure(BASE, None, sampler, steps)
        policies = {seed: yardstick.measure(run.name, run.lora, sampler, steps) for seed, run in runs.items()}
        measured[f"{sampler}-{steps}"] = (base, policies)
    steady = yardstick.steady_flow_jerk()
    tables = {
        sampler: {kind: changes(base, policies, kind) for kind in kinds(base)}
        for sampler, (base, policies) in measured.items()
    }
    bars = {sampler: checks(*records, steady["mean"]) for sampler, records in measured.items()}
    counts = {sampler: len(base) for sampler, (base, _) in measured.items()}
    train = runs[options.seeds[0]].settings
    figures = {
        "n": counts,
        "seeds": list(options.seeds),
        "checks": bars,
        "changes": tables,
        "steady_real_flow_jerk": steady,
        "curves": {seed: held_out_curve(run, CURVES) for seed, run in runs.items()},
        "curves_of": f"{train.num_evaluation_prompts} other captions, {train.infer_steps}-step ODE",
        "training": {seed: {"seconds": run.seconds, "alarms": run.alarms} for seed, run in runs.items()},
    }
    settings = {"train": train, "evaluation": yardstick.settings}
    path = write_result(NAME, options, settings, figures, as_text(bars, tables, counts, steady))
    draw(path)
    return 0


def as_text(
    bars: Mapping[str, list[Check]],
    tables: Mapping[str, Mapping[str, Mapping[str, Change]]],
    counts: Mapping[str, int],
    steady: Mapping[str, float],
) -> str:
    """All figures as markdown."""
    parts = [f"Steady real clips, autoencoded: flow jerk {steady['mean']:.3f} ({steady['clips']} clips)."]
    for sampler, by_kind in tables.items():
        parts += [f"## {sampler}, {counts[sampler]} samples a seed", check_table(bars[sampler])]
        for kind, table in by_kind.items():
            parts += [f"### {kind} prompts", change_table(table)]
    return "\n\n".join(parts)


def change_table(table: Mapping[str, Change]) -> str:
    """Every metric before and after."""
    seeds = list(next(iter(table.values())).seeds)
    rows = []
    for name, row in table.items():
        metric = describe(name)
        places = max(metric.decimals, 3) if metric.better != "watch" else metric.decimals
        rows.append(
            [
                metric.label,
                f"{row.base.mean:.{places}f}",
                f"{row.policy.mean:.{places}f}",
                figure(row.change, places, signed=True),
                *(figure(row.seeds[seed], places, signed=True) for seed in seeds),
            ]
        )
    header = ["metric", "base", "aligned", "change [95 %]", *(f"seed {seed}" for seed in seeds)]
    return markdown_table(header, rows)


if __name__ == "__main__":
    run(main)
