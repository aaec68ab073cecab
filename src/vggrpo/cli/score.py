"""`vggrpo score`."""

import shlex
from collections.abc import Sequence

WIDTH_OF_FILES = 180
"""Columns of a table that is not shown on a terminal."""


def main(argv: Sequence[str]) -> int:
    """Runs the command and prints the table; 1 if clips failed."""
    from vggrpo.cli.recipes import parse_with_recipe
    from vggrpo.config import ScoreSettings

    settings = parse_with_recipe(ScoreSettings, "score", argv)

    from rich.console import Console

    from vggrpo.evaluation.scoring import score_clips, score_table
    from vggrpo.training.rewards import build_rewards
    from vggrpo.training.runtime import choose_device

    rewards, device = build_rewards(settings.rewards), choose_device(settings.device)
    scoring = score_clips(settings, rewards, device, shlex.join(["vggrpo", "score", *argv]))
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILES)
    console.print(score_table(scoring.records, scoring.summary, settings.space))
    for record in scoring.failed:
        print(f"failed: {record['clip']}: {record['reason']}")
    for note in scoring.notes:
        print(f"note: {note}")
    print(f"{len(scoring.records)} clips, {len(scoring.failed)} failed; results are in {scoring.output}")
    return 1 if scoring.failed else 0
