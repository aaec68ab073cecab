"""Controls of VGGRPO on the micro family: would its gains be there without its rewards?

    python benchmarks/micro/controls.py [--seeds 0 1 2] [--quick]

Beside the recipe stand trainings in which every sample gets the advantage of a random other one of its group,
and the recipe's own policies with their LoRA negated: a gain that follows the reward turns into a loss there,
and one that any change of the weights would bring stays. Measured as the ablations are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ablations import measure_rows
from harness.options import Options, parse, run
from harness.pairs import Change
from harness.results import figure, markdown_table, write_result
from harness.variants import control_rows
from harness.workspace import Workspace
from plots import draw

NAME = "controls"
METRICS = (
    *("lgm/camera_motion", "teacher/camera_motion", "lgm/reprojection", "teacher/reprojection"),
    "flow_jerk",
)


def main(words: list[str] | None = None) -> int:
    """Runs the benchmark."""
    options = parse(Options, words, __doc__)
    settings, figures = measure_rows(Workspace(options), control_rows())
    path = write_result(NAME, options, settings, figures, as_text(figures["rows"]))
    draw(path)
    return 0


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as markdown: the change of every metric, pooled and seed by seed."""
    lines = []
    for metric in METRICS:
        for row in rows:
            change: Change = row["changes"][metric]
            seeds = [f"{seed.mean:+.3f}" for seed in change.seeds.values()]
            lines.append([metric, row["label"], figure(change.change, 3, signed=True), *seeds])
    numbers = [f"seed {seed}" for seed in rows[0]["changes"][METRICS[0]].seeds]
    return markdown_table(["metric", "policies", "change [95 %]", *numbers], lines)


if __name__ == "__main__":
    run(main)
