"""Alarms of VGGRPO on the micro family: do trainings that go wrong raise one, and the recipe's none?

    python benchmarks/micro/alarm_experiment.py [--seeds 0] [--quick]

Three trainings: the recipe's; the same on a poor latent geometry model, which has seen few real clips for a
few steps and no generated ones, and is let in without a gate; and one that is rewarded for reprojection
alone. All are evaluated more often than the recipe asks, since an alarm needs two evaluations in a row, and
none stops on an alarm, so that all curves are whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.curves import held_out_curve
from harness.options import Options, parse, run
from harness.results import markdown_table, write_result
from harness.variants import run_name
from harness.workspace import PolicyRun, Workspace
from plots import draw

NAME = "alarm_experiment"
POOR_LGM = {"real_clips": 64, "generated_clips": 0, "epochs": 1, "warmup_steps": 1}
EVERY = 4
"""Iterations between evaluations."""
METRICS = ("lgm/camera_motion", "teacher/camera_motion", "lgm/reprojection", "teacher/reprojection")


@dataclass(frozen=True)
class Watched:
    """One training."""

    label: str
    alarm: bool
    """Whether it is expected to raise an alarm before it ends; if not, it must raise none."""
    poor_lgm: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its runs."""
        return run_name("watched", self.label.lower())


WATCHED = (
    Watched("good LGM", alarm=False),
    Watched("poor LGM", alarm=True, poor_lgm=True),
    Watched("reprojection alone", alarm=True, changes={"reward_weights.camera_motion": 0.0}),
)


@dataclass(frozen=True, kw_only=True)
class AlarmOptions(Options):
    """Options of the experiment."""

    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainings of the policies."""


def main(words: list[str] | None = None) -> int:
    """Runs the experiment; 0 whatever it finds."""
    options = parse(AlarmOptions, words, __doc__)
    workspace = Workspace(options)
    runs = [
        (watched, train_watched(workspace, watched, seed)) for seed in options.seeds for watched in WATCHED
    ]
    rows = [row_figures(watched, policy) for watched, policy in runs]
    train = runs[0][1].settings
    figures = {"n": train.num_evaluation_prompts * train.evaluation_noises, "rows": rows}
    settings = {"poor LGM": POOR_LGM, "train": train}
    path = write_result(NAME, options, settings, figures, as_text(rows))
    draw(path)
    return 0


def train_watched(workspace: Workspace, watched: Watched, seed: int) -> PolicyRun:
    """The policy of a watched training."""
    folder = workspace.train_lgm("poor", changes=POOR_LGM).model if watched.poor_lgm else workspace.lgm()
    changes = {
        "lgm_floor": 0.0,
        "stop_on_alarm": False,
        "eval_every": 1 if workspace.options.quick else EVERY,
        **watched.changes,
    }
    return workspace.train_policy(folder, watched.name, seed, changes)


def row_figures(watched: Watched, policy: PolicyRun) -> dict[str, Any]:
    """The curves and alarms of a training; an alarm must come before its end, or never."""
    settings, alarms = policy.settings, policy.alarms
    first = min((alarm["iteration"] for alarm in alarms), default=None)
    early = first is not None and first < settings.iterations
    return {
        "training": watched.label,
        "alarm_expected": watched.alarm,
        "seed": settings.seed,
        "iterations": settings.iterations,
        "first_alarm": first,
        "passed": early if watched.alarm else first is None,
        "alarms": alarms,
        "curve": held_out_curve(policy, METRICS),
        "seconds": policy.seconds,
    }


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table and the alarms' sentences as markdown."""
    lines = []
    for row in rows:
        names = ", ".join(sorted({alarm["name"] for alarm in row["alarms"]})) or "none"
        first = "-" if row["first_alarm"] is None else f"{row['first_alarm']} of {row['iterations']}"
        expected = "before the end" if row["alarm_expected"] else "none"
        verdict = "pass" if row["passed"] else "FAIL"
        lines.append([row["training"], str(row["seed"]), expected, names, first, verdict])
    sentences = [
        f"- {row['training']}, seed {row['seed']}: {alarm['sentence']}"
        for row in rows
        for alarm in row["alarms"]
    ]
    header = ("training", "seed", "alarm expected", "alarms raised", "first after iteration", "")
    return "\n\n".join([markdown_table(header, lines), *(["\n".join(sentences)] if sentences else [])])


if __name__ == "__main__":
    run(main)
