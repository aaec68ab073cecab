"""`vggrpo tune-noise`: how much noise rollouts can take."""

from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import TuneNoiseSettings

WIDTH_OF_FILES = 160
"""Columns of a table that is not shown on a terminal."""


def main(argv: list[str]) -> int:
    """Runs the command; prints the table and the recommendation."""
    settings = parse_with_recipe(TuneNoiseSettings, "tune-noise", argv)
    from rich.console import Console

    from vggrpo.training.tune_noise import tune_noise
    from vggrpo.training.tune_noise_plot import noise_table

    tuning = tune_noise(settings)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILES)
    console.print(noise_table(tuning))
    print(tuning.sentence)
    print(f"rule: {tuning.rule}")
    print(f"table and plot are in {settings.output}")
    return 0
