"""The plot of `vggrpo evaluate-geometry`: errors of every reading, and what latent noise does to them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggrpo.evaluation.catalogue import describe
from vggrpo.evaluation.videos.results import Record, column
from vggrpo.io import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"pixels": "#444444", "decoded": "#c4601d", "latents": "#0b6e99"}
DISTRIBUTIONS = ("ate", "aligned_depth_abs_rel", "moving_flow_epe")
UNDER_NOISE = ("pose_auc_30", *DISTRIBUTIONS)
COLUMNS = 4
GREY = "#666666"


def plot_geometry(
    figures: Mapping[str, Any], records: Mapping[str, Sequence[Record]], path: Path | str
) -> None:
    """Draws the figures of an evaluation; the suffix of `path` sets the format.

    First row: the accuracy of poses over the threshold, and the share of clips below an error. With noise
    two rows more: errors over its level; and how rewards follow the uncut model's of the clean latents.

    Args:
        figures: the content of evaluation.json.
        records: of every clip, by reading.
        path: of the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    noise = figures["noise"]
    rows = 1 if noise is None else 3
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(14.0, 3.1 * rows + 0.5), layout=layout)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    _draw_accuracy(grid[0, 0], figures["readings"])
    for axes, metric in zip(grid[0, 1:], DISTRIBUTIONS, strict=True):
        _draw_distribution(axes, metric, records)
    if noise is not None:
        for axes, metric in zip(grid[1], UNDER_NOISE, strict=True):
            _draw_errors_under_noise(axes, metric, noise)
        _draw_rewards_under_noise(grid[2], noise)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), fontsize=9)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _draw_accuracy(axes: "Axes", readings: Mapping[str, Any]) -> None:
    axes.set_title("accuracy of relative poses", fontsize=10)
    axes.set(xlabel="error of a pair of views below, degrees", ylabel="share of pairs", ylim=(0, 1.02))
    for name, reading in readings.items():
        curve = reading["accuracy"]
        if curve:
            axes.plot(
                [0, *range(1, len(curve) + 1)], [0.0, *curve], color=COLOURS[name], label=reading["label"]
            )
    axes.grid(alpha=0.25)


def _draw_distribution(axes: "Axes", metric: str, records: Mapping[str, Sequence[Record]]) -> None:
    """The share of the clips that have an error at all whose error is below x."""
    _head(axes, metric)
    axes.set(xlabel=_unit(metric), ylabel="share of clips below", ylim=(0, 1.02))
    greatest = 0.0
    for name, of_reading in records.items():
        values = sorted(value for value in column(of_reading, metric) if math.isfinite(value))
        if values:
            shares = [(rank + 1) / len(values) for rank in range(len(values))]
            axes.step([0.0, *values], [0.0, *shares], where="post", color=COLOURS[name])
            # A few lost clips would squeeze all others into the corner.
            greatest = max(greatest, values[int(0.95 * (len(values) - 1))])
    if greatest > 0:
        axes.set_xlim(0, 1.1 * greatest)
        axes.grid(alpha=0.25)
    else:
        _say_not_measured(axes)


def _draw_errors_under_noise(axes: "Axes", metric: str, noise: Mapping[str, Any]) -> None:
    _head(axes, metric, " under noise")
    if metric not in noise["errors"]:
        _say_not_measured(axes)
        return
    axes.set_ylabel(_unit(metric))
    for name, curve in noise["errors"][metric].items():
        _draw_curve(axes, noise["levels"], curve, COLOURS[name])
    _label_levels(axes, noise["levels"])


def _draw_rewards_under_noise(row: Sequence["Axes"], noise: Mapping[str, Any]) -> None:
    """Two places for each of the first two rewards: rank correlation and error."""
    readings = {"lgm": COLOURS["latents"], "teacher": COLOURS["decoded"]}
    statistics = {"correlation": "Spearman", "error": "median |difference|"}
    places = [(name, what) for name in noise["rewards"] for what in statistics]
    for axes, (name, what) in zip(row, places, strict=False):
        axes.set_title(f"{name.replace('_', ' ')} reward under noise", fontsize=10)
        axes.set_ylabel(f"{statistics[what]} to clean, decoded", fontsize=9)
        for reading, colour in readings.items():
            _draw_curve(axes, noise["levels"], [p[reading][what] for p in noise["rewards"][name]], colour)
        _label_levels(axes, noise["levels"])
    for axes in row[len(places) :]:
        axes.set_axis_off()


def _draw_curve(
    axes: "Axes", levels: Sequence[float], curve: Sequence[Mapping[str, float | None]], colour: str
) -> None:
    """Means with their intervals as a band, the levels evenly spaced."""
    mean, low, high = ([_float(interval[end]) for interval in curve] for end in ("mean", "low", "high"))
    axes.plot(range(len(levels)), mean, color=colour, marker="o", ms=4)
    axes.fill_between(range(len(levels)), low, high, color=colour, alpha=0.15, linewidth=0)


def _label_levels(axes: "Axes", levels: Sequence[float]) -> None:
    axes.set_xticks(list(range(len(levels))), [f"{level:g}" for level in levels])
    axes.set_xlabel("latent noise, share of the latents' std")
    axes.grid(alpha=0.25)


def _head(axes: "Axes", metric: str, more: str = "") -> None:
    axes.set_title(describe(metric).label + more, fontsize=10)


def _say_not_measured(axes: "Axes") -> None:
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, color=GREY, ha="center", va="center")
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")


def _unit(metric: str) -> str:
    return describe(metric).unit or "ratio"


def _float(value: float | None) -> float:
    return math.nan if value is None else value
