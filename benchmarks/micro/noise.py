"""Noise of the rollouts on the micro family: `vggrpo tune-noise` with its recipe.

python benchmarks/micro/noise.py [--seeds 0] [--quick]
"""

from dataclasses import dataclass
from typing import Any

from harness.options import Options, only_seed, parse, run
from harness.results import figure, markdown_table, write_result
from harness.workspace import Workspace, resumed
from plots import draw

from vggrpo.config import TuneNoiseSettings
from vggrpo.io import write_text
from vggrpo.training.tune_noise import tune_noise
from vggrpo.training.tune_noise_figures import NoiseTuning

NAME = "noise"
COLUMNS = ("score/std", "exploration", "loss", "latent/shift", "latent/roughness", "informative", "invalid")


@dataclass(frozen=True, kw_only=True)
class NoiseOptions(Options):
    """Options of the grid."""

    seeds: tuple[int, ...] = (0,)
    """The seed of the noises, one."""


def main(words: list[str] | None = None) -> int:
    """Measures the grid."""
    options = parse(NoiseOptions, words, __doc__)
    seed = only_seed(options)
    workspace = Workspace(options)
    changes: dict[str, Any] = {"lgm_path": workspace.lgm()}
    settings = workspace.settings(TuneNoiseSettings, "tune-noise", "recipe", seed, changes)
    tuning = tune_noise(resumed(settings))
    write_text(options.results / f"{NAME}.csv", tuning.as_csv())
    counts = {"prompts": settings.num_prompts, "samples of a prompt": settings.group_size}
    figures = {"n": counts, "sentence": tuning.sentence, **tuning.as_dict()}
    path = write_result(NAME, options, {"tune-noise": settings}, figures, as_text(tuning))
    draw(path)
    return 0


def as_text(tuning: NoiseTuning) -> str:
    """The grid as markdown."""
    lines = []
    for row in tuning.rows:
        mark = " (recommended)" if row is tuning.recommended else ""
        within = "yes" if tuning.within_tolerance(row) else "no"
        lines.append([row.cell.name + mark, *(figure(row.figures[name], 2) for name in COLUMNS), within])
    table = markdown_table(["cell", *COLUMNS, "within the tolerances"], lines)
    return f"{table}\n\n{tuning.sentence}\n\nRule: {tuning.rule}."


if __name__ == "__main__":
    run(main)
