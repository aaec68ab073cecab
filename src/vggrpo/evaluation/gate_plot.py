"""The gate of a latent geometry model as a table and as a picture."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggrpo.evaluation.gate import LGMGate, NoisePoint, NoiseResponse, RankAgreement
from vggrpo.evaluation.intervals import Interval
from vggrpo.io import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GATE_PLOT = "gate.png"
LGM_COLOUR, TEACHER_COLOUR = "#0b6e99", "#c4601d"
GREY = "#666666"
CEILING = "ceiling: the teacher after one more encoding, without noise"


def gate_table(gate: LGMGate, verdicts: Mapping[str, str] | None = None) -> str:
    """One line per kind of clips and reward under a header, intervals in brackets, and the steady-shaky AUC.

    Args:
        gate: what was measured.
        verdicts: what to write behind the figures of a reward on generated clips, by its name.
    """
    rows = [["clips", "reward", "Spearman", "ceiling", "share of it", "n", ""]]
    for kind, quality in (("generated", gate.generated), ("real", gate.real)):
        for name, agreement in quality.rewards.items():
            figures = [_interval(i) for i in (agreement.correlation, agreement.ceiling, agreement.share)]
            failed = f" ({agreement.share.missing} failed)" if agreement.share.missing else ""
            verdict = (verdicts or {}).get(name, "") if kind == "generated" else ""
            rows.append([kind, name, *figures, f"{agreement.share.count}{failed}", verdict])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if gate.steady_shaky_auc:
        parts = [f"{name} {_interval(value)}" for name, value in gate.steady_shaky_auc.items()]
        lines.append("steady-shaky AUC of the camera motion on real clips: " + ", ".join(parts))
    return "\n".join(lines)


def plot_gate(gate: LGMGate, path: Path | str) -> None:
    """Draws a row for every reward: LGM against teacher on generated clips, then both under latent noise.

    The suffix of `path` sets the format.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names = list(gate.generated.rewards)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(11.0, 3.4 * len(names) + 0.7), layout=layout)
    grid = figure.subplots(len(names), 3, squeeze=False, width_ratios=(1.0, 1.1, 1.1))
    frames, height, width = gate.clip
    figure.suptitle(
        f"gate of the latent geometry model (LGM): clips of {gate.base_model}, {frames} frames of "
        f"{height}x{width}, teacher {gate.geometry_model}",
        fontsize=11,
    )
    for name, (scatter, ranks, errors) in zip(names, grid, strict=True):
        agreement, points = gate.generated.rewards[name], gate.robustness.get(name, ())
        _draw_scatter(scatter, name, agreement)
        ranks.set_title("rank correlation with the teacher\non clean decoded video", fontsize=9)
        ranks.set_ylabel("Spearman")
        _draw_curves(ranks, points, lambda response: response.correlation)
        if points and math.isfinite(agreement.ceiling.mean):
            ranks.axhline(agreement.ceiling.mean, color=GREY, linewidth=0.9, linestyle="--", label=CEILING)
        ranks.set_ylim(min(0.0, ranks.get_ylim()[0]), 1.03)
        errors.set_title("median distance to the teacher\non clean decoded video", fontsize=9)
        errors.set_ylabel("|difference of the reward|")
        _draw_curves(errors, points, lambda response: response.error)
        errors.set_ylim(bottom=0)
    labelled = {
        label: mark
        for axes in grid.flat
        for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if labelled:
        figure.legend(labelled.values(), labelled.keys(), loc="outside lower right", ncols=3, fontsize=9)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_scatter(axes: "Axes", name: str, agreement: RankAgreement) -> None:
    """One point a clip; on the dotted line both agree."""
    known = [
        pair
        for pair in zip(agreement.teacher, agreement.lgm, strict=True)
        if all(math.isfinite(value) for value in pair)
    ]
    axes.set_title(
        f"{name.replace('_', ' ')} of {len(known)} generated clips\n"
        f"Spearman {_figure(agreement.correlation.mean)}, ceiling {_figure(agreement.ceiling.mean)}, "
        f"share {_interval(agreement.share)}",
        fontsize=9,
    )
    axes.set(xlabel="teacher on decoded video", ylabel="LGM on latents")
    axes.set_aspect("equal", adjustable="box")
    if known:
        teacher, lgm = zip(*known, strict=True)
        values = [*teacher, *lgm]
        margin = 0.04 * (max(values) - min(values)) or 0.01
        ends = (min(values) - margin, max(values) + margin)
        axes.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=":")
        axes.scatter(teacher, lgm, s=11, alpha=0.55, color=LGM_COLOUR, linewidths=0)
        axes.set(xlim=ends, ylim=ends)


def _draw_curves(
    axes: "Axes", points: Sequence[NoisePoint], part: Callable[[NoiseResponse], Interval]
) -> None:
    """Both readings with their intervals as bands, the levels evenly spaced."""
    axes.set_xlabel("latent noise, share of the latents' std")
    if not points:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, color=GREY, ha="center", va="center")
        axes.set_xticks([])
        return
    places = range(len(points))
    readings = (
        ("LGM on noisy latents", LGM_COLOUR, "o", [part(point.lgm) for point in points]),
        ("teacher on decoded noisy latents", TEACHER_COLOUR, "s", [part(point.teacher) for point in points]),
    )
    for label, colour, marker, intervals in readings:
        axes.plot(places, [i.mean for i in intervals], color=colour, marker=marker, ms=4, label=label)
        ends = [i.low for i in intervals], [i.high for i in intervals]
        axes.fill_between(places, *ends, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(list(places), [f"{point.level:g}" for point in points])
    axes.grid(axis="y", alpha=0.25)


def _figure(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _interval(interval: Interval) -> str:
    ends = f" ({_figure(interval.low)} to {_figure(interval.high)})"
    return _figure(interval.mean) + (ends if math.isfinite(interval.low) else "")
