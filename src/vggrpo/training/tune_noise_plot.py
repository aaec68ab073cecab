"""The noise tuning as a table and as a picture."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from vggrpo.io import atomic_file
from vggrpo.training.tune_noise_figures import NoiseRow, NoiseTuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of the windows in turn: Okabe and Ito's, which colour-blind people tell apart."""
MARKERS = {"flow_sde": "o", "dance_sde": "s", "cps": "^"}
LINES = {"flow_sde": "-", "dance_sde": "--", "cps": ":"}
RING = "#222222"


def noise_table(tuning: NoiseTuning) -> Table:
    """A line a cell, the ODE first; the recommended one is marked with an asterisk, those beyond a tolerance
    are dim. Fits 80 columns, unless samples failed, which takes a column more.
    """
    columns: list[tuple[str, Callable[[NoiseRow], str]]] = [
        ("", lambda row: "*" if row is tuning.recommended else ""),
        ("kind", lambda row: row.cell.transition if row.cell.length else "ODE"),
        ("a", lambda row: f"{row.cell.noise_scale:g}" if row.cell.length else ""),
        ("steps", lambda row: _window(row) if row.cell.length else ""),
        ("group\nstd", lambda row: _number(row.figures["score/std"].mean)),
        ("explo-\nration", lambda row: _number(row.figures["exploration"].mean)),
        ("\nloss", lambda row: _number(row.figures["loss"].mean)),
        ("\nup to", lambda row: _number(row.figures["loss"].high)),
        ("latent\nshift", lambda row: _number(row.figures["latent/shift"].mean, 3)),
        ("\nup to", lambda row: _number(row.figures["latent/shift"].high, 3)),
        ("\nrough", lambda row: _number(row.figures["latent/roughness"].mean)),
        ("ex-\ntreme", lambda row: _percent(row.figures["latent/extreme"].mean, 1)),
        ("infor-\nmative", lambda row: _percent(row.figures["informative"].mean)),
    ]
    if any(row.figures["invalid"].mean > 0 for row in tuning.rows):
        columns.append(("\nfailed", lambda row: _percent(row.figures["invalid"].mean)))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for heading, _ in columns:
        table.add_column(heading, justify="left" if heading in ("", "kind") else "right", no_wrap=True)
    for row in tuning.rows:
        style = "" if tuning.within_tolerance(row) else "dim"
        table.add_row(*(show(row) for _, show in columns), style=style)
    return table


@dataclass(frozen=True)
class _Panel:
    """One figure of the cells over the noise scale."""

    title: str
    figure: str
    limit: Callable[[NoiseTuning], float] | None = None
    """A tolerance to draw."""
    from_zero: bool = True


PANELS = (
    _Panel("exploration\nstd in a group of the change from the ODE's sample", "exploration"),
    _Panel("loss\nscore of the ODE less that of the rollouts", "loss", lambda t: t.tolerance, False),
    _Panel("latent shift\nfrom the ODE's statistics", "latent/shift", lambda t: t.latent_tolerance),
    _Panel("group std\nof the score", "score/std"),
    _Panel("roughness of the latents\nover the ODE's", "latent/roughness", from_zero=False),
    _Panel("informative groups\nshare in which a reward differs", "informative"),
)

LEGEND_FROM = 1
"""A panel with a tolerance has all that the legend explains."""


def plot_noise(tuning: NoiseTuning, path: Path | str) -> None:
    """Draws six figures over the noise scale, a line for each kind and window with its 95 % interval, the ODE
    as a dotted line, and a ring around the recommended cell; the suffix sets the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 7.0), layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    lines: dict[tuple[str, str], list[NoiseRow]] = {}
    for row in tuning.rows[1:]:
        lines.setdefault((row.cell.transition, _window(row)), []).append(row)
    for panel, axes in zip(PANELS, panels, strict=True):
        _draw_panel(axes, panel, tuning, lines)
    handles, labels = panels[LEGEND_FROM].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    chosen = tuning.recommended
    found = (
        f"recommended: {chosen.cell.transition}, noise scale {chosen.cell.noise_scale:g}, steps "
        f"{_window(chosen)}"
        if chosen
        else "no setting is within the tolerances"
    )
    figure.suptitle(f"Noise of the rollouts: {found}", x=0.01, ha="left", fontsize=12)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=140)


def _draw_panel(
    axes: "Axes", panel: _Panel, tuning: NoiseTuning, lines: dict[tuple[str, str], list[NoiseRow]]
) -> None:
    windows = list(dict.fromkeys(window for _, window in lines))
    for (transition, window), rows in lines.items():
        rows = sorted(rows, key=lambda row: row.cell.noise_scale)
        scales = [row.cell.noise_scale for row in rows]
        intervals = [row.figures[panel.figure] for row in rows]
        colour = COLOURS[windows.index(window) % len(COLOURS)]
        axes.plot(
            scales,
            [interval.mean for interval in intervals],
            color=colour,
            linestyle=LINES[transition],
            marker=MARKERS[transition],
            markersize=5,
            linewidth=1.8,
            label=f"{transition}, steps {window}",
        )
        low, high = ([getattr(interval, end) for interval in intervals] for end in ("low", "high"))
        axes.fill_between(scales, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.axhline(
        tuning.rows[0].figures[panel.figure].mean, color="grey", linestyle=":", linewidth=1.2, label="ODE"
    )
    if panel.limit is not None:
        axes.axhline(panel.limit(tuning), color="#B00020", linewidth=1.2, label="tolerance")
    chosen = tuning.recommended
    if chosen is not None:
        axes.plot(
            chosen.cell.noise_scale,
            chosen.figures[panel.figure].mean,
            marker="o",
            markersize=13,
            markerfacecolor="none",
            markeredgecolor=RING,
            markeredgewidth=1.8,
            linestyle="none",
            label="recommended",
        )
    title, _, meaning = panel.title.partition("\n")
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=18)
    axes.text(0, 1.02, meaning, transform=axes.transAxes, fontsize=8.5, color="#555555", va="bottom")
    axes.set_xlabel("noise scale")
    axes.set_xticks(sorted({row.cell.noise_scale for rows in lines.values() for row in rows}))
    axes.set_xticklabels([f"{tick:g}" for tick in axes.get_xticks()])
    if panel.from_zero:
        axes.set_ylim(bottom=0)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _window(row: NoiseRow) -> str:
    """The first and the last stochastic step, counted from 0."""
    first, last = row.cell.start, row.cell.start + row.cell.length - 1
    return f"{first}" if first == last else f"{first}-{last}"


def _number(value: float, decimals: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def _percent(value: float, decimals: int = 0) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.{decimals}f}%"
