"""A comparison as one HTML file that loads nothing."""

import math
from collections.abc import Sequence

import numpy as np

from vggrpo import __version__
from vggrpo.evaluation.catalogue import Metric
from vggrpo.evaluation.report.families import by_family
from vggrpo.evaluation.report.figures import (
    change_cell,
    metric_glossary,
    metric_label,
    metric_name_cell,
    verdict_chip,
)
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.numbers import counted, number
from vggrpo.evaluation.report.shell import code_block, footer, render_page, section, title_block
from vggrpo.evaluation.report.strips import Strip, strip_chart
from vggrpo.evaluation.report.words import join_words
from vggrpo.evaluation.run_comparison.markdown import (
    TIED,
    TITLES,
    methods_beside,
    reading_words,
)
from vggrpo.evaluation.run_comparison.published import PublishedFigure, published_beside
from vggrpo.evaluation.run_comparison.table import Cell, MetricRow, RunComparison
from vggrpo.evaluation.run_comparison.videos import videos_section

TONES = 4
LABEL_WIDTH = 6.2
"""Of a letter in a plot's labels, user units."""


def comparison_page(
    comparison: RunComparison, command: str, created: str, published: Sequence[PublishedFigure] = ()
) -> str:
    """The page as text: tables for all clips and each kind of scene, plots, published figures, sources."""
    parts = [
        (subset, TITLES[subset], _table(comparison, subset, published if subset == "all" else ()))
        for subset in comparison.subsets
    ]
    parts.append(("plots", "Clips, means and intervals", _plots(comparison)))
    videos = videos_section(comparison)
    if videos is not None:
        parts.append(("videos", "Videos", videos))
    if published:
        parts.append(("published", f"Published for {published[0].setting}", _published(published)))
    parts.append(("sources", "Sources and command", _sources(comparison, command)))
    title = " / ".join(comparison.labels)
    return render_page(
        title,
        {name: heading.split(",")[0] for name, heading, _ in parts},
        element(
            "header",
            title_block("Comparison", title, [created, f"vggrpo {__version__}"], _abstract(comparison)),
            *(element("p", note, class_="warning") for note in comparison.notes),
            id="top",
        ),
        *(section(name, heading, content) for name, heading, content in parts),
        footer(created),
    )


def _abstract(comparison: RunComparison) -> str:
    baseline = comparison.labels[comparison.baseline]
    others = [label for place, label in enumerate(comparison.labels) if place != comparison.baseline]
    counts = [len(places) for places in comparison.pairing.places]
    if comparison.pairing.is_paired:
        clips = f"over {counted(counts[0], 'clip')}, paired by prompt and seed"
    else:
        clips = "as independent samples"
    return f"{join_words(others)} against {baseline}, {clips}."


def _table(comparison: RunComparison, subset: str, published: Sequence[PublishedFigure]) -> Markup:
    rows = comparison.rows_of(subset)
    methods = methods_beside(rows, published)
    heads: list[Markup] = [element("th", "Metric", scope="col")]
    for place, label in enumerate(comparison.labels):
        if place == comparison.baseline:
            heads.append(element("th", label, element("span", " baseline", class_="unit"), scope="col"))
        else:
            heads += [element("th", label, scope="col"), element("th", "Difference", scope="col")]
    heads += [element("th", f"Published: {method}", scope="col", class_="published") for method in methods]
    by_name = {row.metric.name: row for row in rows}
    body = []
    for heading, metrics in by_family(row.metric for row in rows):
        head = element("th", heading, colspan=str(len(heads)), scope="colgroup")
        body.append(element("tr", head, class_="group"))
        for metric in metrics:
            beside = published_beside(published, metric.name)
            body.append(
                element(
                    "tr",
                    metric_name_cell(metric),
                    *_cells(comparison, by_name[metric.name]),
                    *(_published_cell(beside.get(method)) for method in methods),
                )
            )
    table = element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *body),
        class_="figures means compared",
    )
    words = reading_words(comparison, best="Underlined")
    glossary = metric_glossary([row.metric for row in rows]) if subset == "all" else None
    return join(element("div", table, class_="table-scroll"), element("p", words, class_="note"), glossary)


def _cells(comparison: RunComparison, row: MetricRow) -> list[Markup]:
    cells = []
    for place, cell in enumerate(row.cells):
        cells.append(_mean_cell(cell, row.metric))
        if place == comparison.baseline:
            continue
        if cell is None or cell.change is None:
            cells.append(element("td", "n/a", class_="num"))
        else:
            chip = verdict_chip(cell.change) if cell.verdict is not None else None
            cells.append(change_cell(cell.change, chip))
    return cells


def _mean_cell(cell: Cell | None, metric: Metric) -> Markup:
    if cell is None or math.isnan(cell.mean.mean):
        return element("td", "not measured" if cell is None else "n/a", class_="num")
    mean = cell.mean
    mark = f" {TIED}" if cell.rank == "tied" else None
    ends = [f"n = {mean.count:,}"]
    if math.isfinite(mean.low):
        ends.insert(0, f"[{number(mean.low, metric.decimals)}, {number(mean.high, metric.decimals)}]")
    value = element(
        "span", number(mean.mean, metric.decimals), mark, class_="best" if cell.rank == "best" else "mean"
    )
    return element("td", value, element("span", ", ".join(ends), class_="bounds"), class_="num")


def _published_cell(figure: PublishedFigure | None) -> Markup:
    if figure is None:
        return element("td", "")
    hint = "; ".join(text for text in (figure.source, figure.doubt) if text)
    return element("td", number(figure.value, figure.decimals), class_="num published", title=hint)


def _plots(comparison: RunComparison) -> Markup:
    left = 14 + LABEL_WIDTH * min(16, max(map(len, comparison.labels)))
    panels = []
    for row in comparison.rows_of("all"):
        strips = [
            Strip(
                label if len(label) <= 16 else f"{label[:15]}\u2026",
                f"series-{place % TONES}",
                cell.mean,
                cell.values,
                label,
            )
            for place, (label, cell) in enumerate(zip(comparison.labels, row.cells, strict=True))
            if cell is not None
        ]
        if any(np.isfinite(strip.values).any() for strip in strips):
            arrow = {"higher": " \u2191", "lower": " \u2193", "watch": ""}[row.metric.better]
            caption = element("figcaption", element("strong", f"{metric_label(row.metric)}{arrow}"))
            chart = strip_chart(strips, f"{row.metric.label} of every run", row.metric.decimals, left)
            panels.append(element("figure", caption, chart, class_="panel"))
    lead = element(
        "p", "The dot is the mean and the bar its 95 % interval. Above it stand the clips.", class_="lead"
    )
    return join(lead, element("div", *panels, class_="panels"))


def _published(published: Sequence[PublishedFigure]) -> Markup:
    is_doubted = any(figure.doubt for figure in published)
    rows = [
        element(
            "tr",
            element("th", figure.measure, scope="row"),
            element("td", figure.method),
            element("td", number(figure.value, figure.decimals), class_="num"),
            element("td", figure.source),
            element("td", figure.doubt) if is_doubted else None,
        )
        for figure in published
    ]
    heads = ("Measure", "Method", "Value", "Source", *["Doubt"] * is_doubted)
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    table = element("table", element("thead", head), element("tbody", *rows), class_="glossary")
    words = (
        "Of VGGRPO (arXiv 2603.26599), as quoted by the named source, on its own prompts: beside figures of "
        "other prompts they show an order of magnitude, not a difference."
    )
    return join(element("p", words, class_="lead"), element("div", table, class_="table-scroll"))


def _sources(comparison: RunComparison, command: str) -> Markup:
    rows = [
        join(
            element("dt", label),
            element(
                "dd",
                f"{run.source.absolute()}: {counted(len(run.clips), 'clip')}, {len(run.failed):,} failed, "
                f"{len(places):,} compared",
            ),
        )
        for label, run, places in zip(
            comparison.labels, comparison.runs, comparison.pairing.places, strict=True
        )
    ]
    return join(element("dl", *rows), element("h3", "Command"), code_block(command, "command"))
