"""The results of `vggrpo evaluate-geometry` on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from vggrpo.evaluation.catalogue import describe
from vggrpo.evaluation.videos.table import ARROWS, figure_cell, unit_of

NOISE_METRICS = ("pose_auc_30", "ate", "aligned_depth_abs_rel", "moving_flow_epe")


def geometry_table(figures: Mapping[str, Any]) -> Table:
    """A line a metric with the mean and 95 % interval of every reading, or why it has none."""
    readings = figures["readings"]
    table = _table("metric", *(reading["label"] for reading in readings.values()))
    names = dict.fromkeys(name for reading in readings.values() for name in reading["metrics"])
    for name in names:
        metric = describe(name)
        cells = [
            figure_cell(reading["metrics"][name]["all"], metric)
            if name in reading["metrics"]
            else f"[dim]not run: {reading['not_run'][name]}[/dim]"
            for reading in readings.values()
        ]
        table.add_row(f"{ARROWS[metric.better]} {metric.label}{unit_of(metric)}", *cells)
    return table


def noise_table(noise: Mapping[str, Any]) -> Table:
    """A line a level of noise: latent geometry model / uncut model on the decoded latents.

    Means of some errors, and each reward's rank correlation with the uncut model's of the clean latents.
    """
    metrics = [name for name in NOISE_METRICS if name in noise["errors"]]
    table = _table(
        "latent noise",
        *(describe(name).label for name in metrics),
        *(f"Spearman of {name.replace('_', ' ')}" for name in noise["rewards"]),
    )
    for place, level in enumerate(noise["levels"]):
        cells = []
        for name in metrics:
            pair = [noise["errors"][name][reading][place]["mean"] for reading in ("latents", "decoded")]
            cells.append(_pair(pair, describe(name).decimals))
        for points in noise["rewards"].values():
            pair = [points[place][reading]["correlation"]["mean"] for reading in ("lgm", "teacher")]
            cells.append(_pair(pair, 2))
        table.add_row(f"{level:g}", *cells)
    return table


def _pair(values: list[float | None], decimals: int) -> str:
    return " / ".join("n/a" if value is None else f"{value:.{decimals}f}" for value in values)


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
