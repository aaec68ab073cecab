"""The stitch-layer search as a table and as a picture."""

from pathlib import Path

from vggrpo.io import atomic_file
from vggrpo.lgm.search import LayerSearch

COLUMNS = {
    "point": "point",
    "held_out_error": "1 - R²",
    "downstream_error": "downstream",
    "log_depth": "log depth",
    "rotation_deg": "rotation °",
    "translation": "translation",
    "fit_error": "1 - R² (fit)",
    "ridge": "ridge",
}
"""The figures of a candidate and how they are headed; `LayerResult` defines each."""


def layer_table(search: LayerSearch) -> str:
    """One line per candidate under a header, in the model's order; the recommended point is marked with an
    asterisk."""
    rows = [list(COLUMNS.values())]
    for result in search.results:
        figures = result.row()
        mark = " *" if result.point.name == search.recommended else ""
        rows.append(
            [figures["point"] + mark]
            + [_figure(figures[key]) for key in COLUMNS if key not in ("point", "ridge")]
            + [f"{figures['ridge']:.0e}"]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def plot_layer_search(search: LayerSearch, path: Path | str) -> None:
    """Draws held-out and downstream error over the candidates, the recommended one marked; the suffix sets
    the format."""
    from matplotlib.figure import Figure

    names = [result.point.name for result in search.results]
    x = range(len(names))
    figure = Figure(figsize=(max(4.5, 0.5 * len(names) + 2.5), 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, [r.held_out_error for r in search.results], marker="o", label="tokens: held-out 1 - R²")
    if search.nothing_seen is not None:
        downstream = [r.downstream_error for r in search.results if r.downstream_error is not None]
        axes.plot(x, downstream, marker="s", label="untrained outputs: downstream error")
    chosen = names.index(search.recommended)
    axes.axvline(chosen, color="grey", linestyle=":", label=f"recommended: {search.recommended}")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.text(len(names) - 1, 1.0, "nothing seen", color="grey", fontsize=8, ha="right", va="bottom")
    axes.set_xticks(list(x), names)
    axes.set_ylim(0, max(1.12, axes.get_ylim()[1]))
    axes.set_xlabel("stitch point")
    axes.set_ylabel("error (0 = the teacher)")
    axes.set_title(f"{search.num_fit_clips} clips fitted, {search.num_held_out_clips} held out", fontsize=9)
    axes.legend(fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
