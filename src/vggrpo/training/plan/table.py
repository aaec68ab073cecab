"""A plan for people."""

from rich.console import Console
from rich.table import Table

from vggrpo.io import format_duration
from vggrpo.training.plan.plan import GIB, Plan


def print_plan(plan: Plan, console: Console) -> None:
    """Prints the models, the phases, all other figures, and what does not fit."""
    given = plan.assumptions
    console.print(plan.title, highlight=False)
    console.print(_models(plan), _phases(plan))
    width = max(map(len, plan.figures)) + 2
    for label, text in plan.figures.items():
        console.print(f"{label:<{width}}{text}", highlight=False, soft_wrap=True)
    console.print(
        f"Times are operations over {given.tflops:g} TFLOP/s a GPU (--tflops); memory is counted on tensors "
        "without values, beside what CUDA itself takes.",
        highlight=False,
        soft_wrap=True,
    )
    for problem in plan.problems:
        console.print(f"does not fit: {problem}", highlight=False, soft_wrap=True)
    if not plan.problems:
        console.print(f"every phase fits a GPU of {given.gpu_memory:g} GiB (--gpu-memory)", highlight=False)


def _models(plan: Plan) -> Table:
    table = Table("model", "parameters", "trained")
    for size in plan.models:
        table.add_row(size.name, f"{size.parameters:,}", f"{size.trainable:,}" if size.trainable else "")
    return table


def _phases(plan: Plan) -> Table:
    table = Table("phase", f"TFLOP a GPU and {plan.per}", "time", "GiB a GPU")
    for phase in plan.phases:
        seconds = plan.assumptions.seconds(phase.flops)
        table.add_row(
            phase.name, f"{phase.flops / 1e12:,.3g}", format_duration(seconds), f"{phase.memory / GIB:.2f}"
        )
    return table
