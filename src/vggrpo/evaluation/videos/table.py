"""The summary as a table on the terminal."""

from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from vggrpo.evaluation.catalogue import Metric, describe
from vggrpo.evaluation.videos.summary import SUBSETS

ARROWS = {"higher": "↑", "lower": "↓", "watch": "○"}


def summary_table(summary: dict[str, Any]) -> Table:
    """A line a metric: mean and 95 % interval of all clips, and of static and dynamic scenes where they are
    known, and the difference to the reference; metrics that were not run follow with their reason."""
    rows, reference = summary["metrics"], summary["reference"]
    subsets = [subset for subset in SUBSETS if any(row[subset] is not None for row in rows.values())]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("metric")
    for subset in subsets:
        table.add_column(subset, justify="right")
    table.add_column("n", justify="right")
    if reference is not None:
        table.add_column(f"minus {escape(summary['reference_label'])}", justify="right")
    for name, row in rows.items():
        metric = describe(name)
        cells = [figure_cell(row[subset], metric) for subset in subsets]
        cells.append(str(row["all"]["n"]))
        if reference is not None:
            cells.append(_difference(reference[name]["all"], metric))
        table.add_row(f"{ARROWS[metric.better]} {metric.label}{unit_of(metric)}", *cells)
    for name, reason in summary["not_run"].items():
        table.add_row(f"[dim]{describe(name).label}[/dim]", f"[dim]not run: {escape(reason)}[/dim]")
    return table


def unit_of(metric: Metric) -> str:
    """The unit in brackets; nothing where there is none."""
    return f" ({metric.unit})" if metric.unit else ""


def figure_cell(figures: dict[str, float | None] | None, metric: Metric) -> str:
    """Mean and interval of a row of a summary, in rich's markup; n/a where there is none."""
    if figures is None or figures["mean"] is None:
        return "n/a"
    text = f"{figures['mean']:.{metric.decimals}f}"
    if figures["low"] is None or figures["high"] is None:
        return text
    return f"{text} [{figures['low']:.{metric.decimals}f}, {figures['high']:.{metric.decimals}f}]".replace(
        "[", "\\["
    )


def _difference(figures: dict[str, float | None] | None, metric: Metric) -> str:
    """With its interval, and the verdict that the interval allows."""
    if figures is None or figures["mean"] is None:
        return "n/a"
    mean, low, high = figures["mean"], figures["low"], figures["high"]
    text = f"{mean:+.{metric.decimals}f}"
    if low is None or high is None:
        return text
    text += f" \\[{low:+.{metric.decimals}f}, {high:+.{metric.decimals}f}]"
    if low <= 0 <= high:
        return text
    if metric.better == "watch":
        return f"{text} {'higher' if mean > 0 else 'lower'}"
    better = (mean > 0) == (metric.better == "higher")
    return f"[{'green' if better else 'red'}]{text} {'better' if better else 'worse'}[/]"
