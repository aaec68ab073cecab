"""A comparison as markdown tables."""

import math
from collections.abc import Sequence

from vggrpo.evaluation.catalogue import Metric
from vggrpo.evaluation.report.figures import ARROWS, MARKS, metric_label
from vggrpo.evaluation.report.numbers import number
from vggrpo.evaluation.run_comparison.published import PublishedFigure, published_beside
from vggrpo.evaluation.run_comparison.table import Cell, MetricRow, RunComparison

TITLES = {"all": "All clips", "static": "Static scenes", "dynamic": "Dynamic scenes"}
TIED = "\u2248"


def comparison_markdown(comparison: RunComparison, published: Sequence[PublishedFigure] = ()) -> str:
    """A table for all clips and one for each kind of scene, notes, and the published figures."""
    blocks = [f"# {' / '.join(map(_plain, comparison.labels))}"]
    for subset in comparison.subsets:
        rows = comparison.rows_of(subset)
        blocks += [f"## {TITLES[subset]}", _table(comparison, rows, published if subset == "all" else ())]
    blocks.append(reading_words(comparison))
    if comparison.notes:
        blocks.append("\n".join(f"- {note}" for note in comparison.notes))
    if published:
        blocks += [f"## Published for {published[0].setting}", _published_table(published)]
    return "\n\n".join(blocks) + "\n"


def reading_words(comparison: RunComparison, best: str = "**Bold**") -> str:
    """How to read the marks; `best` is how the best mean looks."""
    baseline = comparison.labels[comparison.baseline]
    if comparison.pairing.is_paired:
        clips = "the n clips that every run with the metric could measure"
        differences = "paired by prompt and seed"
    else:
        clips, differences = "the n measured clips of each run", "of independent samples (not paired)"
    return (
        f"Mean and 95 % bootstrap interval over prompts, of {clips}. {ARROWS['higher']} higher is better, "
        f"{ARROWS['lower']} lower is better, {ARROWS['watch']} neither in itself. {best}: the best mean; "
        f"{TIED}: not significantly different from the best. {MARKS['better']} significantly better than "
        f"{baseline}, {MARKS['worse']} significantly worse, {MARKS['higher']} significantly different; no "
        f"mark: no significant difference. Differences are {differences}; significant means that their 95 % "
        "interval leaves out zero, without a correction for the number of metrics."
    )


def cell_marks(cell: Cell) -> str:
    """The signs behind a mean."""
    verdict = cell.verdict
    marks = MARKS[verdict] if verdict is not None and verdict != "no clear change" else ""
    return f"{marks}{TIED if cell.rank == 'tied' else ''}"


def methods_beside(rows: Sequence[MetricRow], published: Sequence[PublishedFigure]) -> list[str]:
    """The published methods that have a figure for a metric of the table."""
    found = [published_beside(published, row.metric.name) for row in rows]
    return list(dict.fromkeys(method for figures in found for method in figures))


def _table(comparison: RunComparison, rows: Sequence[MetricRow], published: Sequence[PublishedFigure]) -> str:
    methods = methods_beside(rows, published)
    heads = ["metric"]
    heads += [
        f"{label} (baseline)" if place == comparison.baseline else label
        for place, label in enumerate(comparison.labels)
    ]
    heads += [f"published: {method}" for method in methods]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in rows:
        beside = published_beside(published, row.metric.name)
        lines.append(
            [
                f"{ARROWS[row.metric.better]} {metric_label(row.metric)}",
                *(_cell(cell, row.metric) for cell in row.cells),
                *(
                    number(beside[method].value, beside[method].decimals) if method in beside else ""
                    for method in methods
                ),
            ]
        )
    return _lines(lines)


def _cell(cell: Cell | None, metric: Metric) -> str:
    if cell is None:
        return "not measured"
    mean = cell.mean
    if math.isnan(mean.mean):
        return "n/a"
    text = number(mean.mean, metric.decimals)
    if cell.rank == "best":
        text = f"**{text}**"
    if math.isfinite(mean.low):
        text += f" [{number(mean.low, metric.decimals)}, {number(mean.high, metric.decimals)}]"
    return f"{text} n={mean.count} {cell_marks(cell)}".strip()


def _published_table(published: Sequence[PublishedFigure]) -> str:
    is_doubted = any(row.doubt for row in published)
    lines = [["measure", "method", "value", "source"], ["---", "---", "---:", "---"]]
    lines += [[row.measure, row.method, number(row.value, row.decimals), row.source] for row in published]
    if is_doubted:
        for line, doubt in zip(lines, ["doubt", "---", *(row.doubt for row in published)], strict=True):
            line.append(doubt)
    return _lines(lines)


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows)


def _plain(text: str) -> str:
    """Text that does not break a table."""
    return text.replace("|", "\\|").replace("\n", " ")
