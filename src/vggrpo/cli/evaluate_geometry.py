"""`vggrpo evaluate-geometry`."""

import shlex
from collections.abc import Sequence

WIDTH_OF_FILES = 160
"""Columns of a table that is not shown on a terminal."""


def main(argv: Sequence[str]) -> int:
    """Runs the command and prints the tables; 1 if clips failed."""
    from vggrpo.cli.recipes import parse_with_recipe
    from vggrpo.config import EvaluateGeometrySettings

    settings = parse_with_recipe(EvaluateGeometrySettings, "evaluate-geometry", argv)

    from rich.console import Console

    from vggrpo.evaluation.geometry_table import geometry_table, noise_table
    from vggrpo.training.evaluate_geometry import evaluate_geometry

    evaluation = evaluate_geometry(settings, shlex.join(["vggrpo", "evaluate-geometry", *argv]))
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILES)
    console.print(geometry_table(evaluation.figures))
    noise = evaluation.figures["noise"]
    if noise is not None:
        console.print()
        console.print(noise_table(noise))
        print(f"on {noise['clips']} clips; latent geometry model / geometry model on the decoded latents")
    for clip, reason in evaluation.failed:
        print(f"failed: {clip}: {reason}")
    reading = next(iter(evaluation.figures["readings"].values()))
    print(f"{reading['num_clips']} clips, {reading['num_failed']} failed; results are in {evaluation.output}")
    return 1 if evaluation.failed else 0
