"""`--dry-run` of the training commands."""

from vggrpo.config import LGMSettings, TrainSettings
from vggrpo.config.plan import DEFAULT_GPU_MEMORY, DEFAULT_TFLOPS, PlanFlags

WIDTH_OF_FILES = 160
"""Columns of a table that is not shown on a terminal."""


def show_plan(flags: PlanFlags, settings: TrainSettings | LGMSettings, gpus: int = 1) -> int:
    """Prints what the run of `settings` would cost; 1 if it would not fit."""
    from rich.console import Console

    from vggrpo.training.plan import Assumptions, plan_lgm, plan_training, print_plan

    assumptions = Assumptions(flags.tflops or DEFAULT_TFLOPS, flags.gpu_memory or DEFAULT_GPU_MEMORY, gpus)
    if isinstance(settings, TrainSettings):
        plan = plan_training(settings, assumptions)
    else:
        plan = plan_lgm(settings, assumptions)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILES)
    print_plan(plan, console)
    return 1 if plan.problems else 0
