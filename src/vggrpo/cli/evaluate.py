"""`vggrpo evaluate`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

WIDTH_OF_FILES = 160
"""Columns of a table that is not shown on a terminal."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; 1 if clips failed, or if a part of what was to be set up cannot be had."""
    import tyro

    if any(argument.partition("=")[0] == "--setup" for argument in argv):
        return _setup(argv)

    from pydantic import Field

    from vggrpo.config import EvaluateSettings

    class EvaluateArguments(EvaluateSettings):
        __doc__ = EvaluateSettings.__doc__
        folder: Annotated[Path, tyro.conf.Positional] = Field(
            description=EvaluateSettings.model_fields["folder"].description
        )

    arguments = tyro.cli(EvaluateArguments, prog="vggrpo evaluate", args=list(argv))
    settings = EvaluateSettings(**arguments.model_dump())

    from rich.console import Console

    from vggrpo.evaluation.folder_report import write_folder_report
    from vggrpo.evaluation.videos import evaluate_folder, summary_table
    from vggrpo.training.runtime import choose_device

    command = shlex.join(["vggrpo", "evaluate", *argv])
    evaluation = evaluate_folder(settings, choose_device(settings.device), command)
    page = write_folder_report(evaluation.output)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILES)
    console.print(summary_table(evaluation.summary))
    for note in evaluation.summary["notes"]:
        print(f"note: {note}")
    for clip, reason in evaluation.failed:
        print(f"failed: {clip}: {reason}")
    print(f"{evaluation.summary['num_clips']} clips, {len(evaluation.failed)} failed; the report is {page}")
    return 1 if evaluation.failed else 0


def _setup(argv: Sequence[str]) -> int:
    """Makes VBench's environment; 1 if a dimension cannot be had."""
    import tyro

    from vggrpo.config.evaluate import EvaluateSetupSettings

    settings = tyro.cli(EvaluateSetupSettings, prog="vggrpo evaluate", args=list(argv))

    from vggrpo.evaluation.vbench import DIMENSIONS, setup_vbench
    from vggrpo.training.runtime import choose_device

    state = setup_vbench(settings.python, str(choose_device(settings.device)))
    usable = len(DIMENSIONS) - len(state.unavailable)
    print(f"{usable} of {len(DIMENSIONS)} dimensions can be measured; the environment is {state.folder}")
    return 1 if state.unavailable else 0
