"""Alarms of VGGRPO on the micro family: a poor latent geometry model must raise one, the recipe's must not.

    python benchmarks/micro/alarm_experiment.py [--seeds 0] [--quick]

The poor one has seen few real clips for a few steps and no generated ones, and is let in without a gate.
Both trainings are evaluated more often than the recipe asks, since an alarm needs two evaluations in a row,
and neither stops on an alarm, so that both curves are whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.curves import held_out_curve
from harness.options import Options, parse, run
from harness.results import markdown_table, write_result
from harness.workspace import PolicyRun, Workspace
from plots import draw

NAME = "alarm_experiment"
POOR_LGM = {"real_clips": 64, "generated_clips": 0, "epochs": 1, "warmup_steps": 1}
EVERY = 4
"""Iterations between evaluations."""
GOOD, POOR = "good", "poor"
METRICS = ("lgm/camera_motion", "teacher/camera_motion", "lgm/reprojection", "teacher/reprojection")


@dataclass(frozen=True, kw_only=True)
class AlarmOptions(Options):
    """Options of the experiment."""

    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainings of the policies."""


def main(words: list[str] | None = None) -> int:
    """Runs the experiment; 0 whatever it finds."""
    options = parse(AlarmOptions, words, __doc__)
    workspace = Workspace(options)
    runs = [(lgm, watched_policy(workspace, lgm, seed)) for seed in options.seeds for lgm in (GOOD, POOR)]
    rows = [row_figures(lgm, policy) for lgm, policy in runs]
    settings = {"poor LGM": POOR_LGM, "train": runs[0][1].settings}
    path = write_result(NAME, options, settings, {"rows": rows}, as_text(rows))
    draw(path)
    return 0


def watched_policy(workspace: Workspace, lgm: str, seed: int) -> PolicyRun:
    """A policy trained on the good or the poor latent geometry model."""
    poor = lgm == POOR
    folder = workspace.train_lgm(POOR, changes=POOR_LGM).model if poor else workspace.lgm()
    changes = {
        "lgm_floor": 0.0,
        "stop_on_alarm": False,
        "eval_every": 1 if workspace.options.quick else EVERY,
    }
    return workspace.train_policy(folder, f"watched_{lgm}_lgm", seed, changes)


def row_figures(lgm: str, policy: PolicyRun) -> dict[str, Any]:
    """The curves and alarms of a training; an alarm must come before its end, or never."""
    settings, alarms = policy.settings, policy.alarms
    first = min((alarm["iteration"] for alarm in alarms), default=None)
    curve = held_out_curve(policy, METRICS)
    early = first is not None and first < settings.iterations
    return {
        "lgm": lgm,
        "seed": settings.seed,
        "iterations": settings.iterations,
        "n": curve[-1].changes[METRICS[0]].count,
        "first_alarm": first,
        "passed": early if lgm == POOR else first is None,
        "alarms": alarms,
        "curve": curve,
        "seconds": policy.seconds,
    }


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table and the alarms' sentences as markdown."""
    lines = []
    for row in rows:
        names = ", ".join(sorted({alarm["name"] for alarm in row["alarms"]})) or "none"
        first = "-" if row["first_alarm"] is None else f"{row['first_alarm']} of {row['iterations']}"
        expected = "before the end" if row["lgm"] == POOR else "none"
        verdict = "pass" if row["passed"] else "FAIL"
        lines.append([row["lgm"], str(row["seed"]), expected, names, first, verdict])
    sentences = [
        f"- {row['lgm']}, seed {row['seed']}: {alarm['sentence']}" for row in rows for alarm in row["alarms"]
    ]
    header = ("latent geometry model", "seed", "alarm expected", "alarms raised", "first after iteration", "")
    return "\n\n".join([markdown_table(header, lines), *(["\n".join(sentences)] if sentences else [])])


if __name__ == "__main__":
    run(main)
