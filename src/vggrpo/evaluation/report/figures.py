"""The outcome at a glance and the table of key figures."""

import math
from collections.abc import Sequence

from vggrpo.evaluation.alarms import MOTION_AMOUNTS
from vggrpo.evaluation.catalogue import Metric
from vggrpo.evaluation.comparison import Comparison, rows_of
from vggrpo.evaluation.report.charts import forest_mark
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.numbers import bounds, counted, number, signed
from vggrpo.evaluation.report.words import independent_rows, join_words

GLANCE = (*MOTION_AMOUNTS, "diversity")
"""Watched metrics shown beside the independent checks at the top of the page."""

GROUPS = (
    ("Independent: the teacher on decoded frames", ("teacher/",)),
    ("Independent: motion of the picture", ("flow_jerk", "flow_magnitude", "flow_drift")),
    ("Trained on: the latent geometry model on latents", ("lgm/",)),
    ("To watch: camera travel by the teacher", ("camera_",)),
    ("To watch: the latent geometry model against its teacher", ("fidelity/",)),
    (
        "To watch: pixels and variety",
        ("brightness", "contrast", "saturation", "sharpness", "object_presence", "diversity"),
    ),
)
"""Headings of the table and the beginnings of the metric names under them."""

ARROWS = {"higher": "\u2191", "lower": "\u2193", "watch": "\u25cb"}
MARKS = {
    "better": "\u25b2",
    "worse": "\u25bc",
    "higher": "\u25c6",
    "lower": "\u25c6",
    "no clear change": "\u2013",
}


def verdict_chip(row: Comparison) -> Markup:
    """The verdict as a coloured word with a sign that does not need the colour."""
    verdict = row.verdict
    return element("span", f"{MARKS[verdict]} {verdict}", class_=f"chip verdict-{verdict.replace(' ', '-')}")


def glance(comparisons: Sequence[Comparison]) -> Markup:
    """One tile for each independent check and for the most telling watched metrics."""
    rows = rows_of(comparisons, "all")
    shown = independent_rows(comparisons) + [rows[name] for name in GLANCE if name in rows]
    return tiles(shown[:6])


def tiles(rows: Sequence[Comparison]) -> Markup:
    """One tile for each change."""
    return element("div", *(_tile(row) for row in rows), class_="tiles")


def _tile(row: Comparison) -> Markup:
    decimals = row.metric.decimals
    return element(
        "div",
        element("div", metric_label(row.metric), class_="tile-label"),
        element(
            "div",
            signed(row.change.mean, decimals),
            class_=f"tile-value verdict-{row.verdict.replace(' ', '-')}",
        ),
        element("div", bounds(row.change, decimals), class_="tile-bounds"),
        element(
            "div",
            f"{number(row.before.mean, decimals)} \u2192 {number(row.after.mean, decimals)}",
            class_="tile-means",
        ),
        verdict_chip(row),
        class_="tile",
        title=row.metric.meaning,
    )


def figure_table(comparisons: Sequence[Comparison]) -> Markup:
    """All metrics: means, paired change with interval, and the change on each kind of prompt."""
    overall = rows_of(comparisons, "all")
    kinds = [subset for subset in dict.fromkeys(row.subset for row in comparisons) if subset != "all"]
    by_kind = {kind: rows_of(comparisons, kind) for kind in kinds}
    reach = axis_reach(list(overall.values()))
    body: list[Markup] = []
    left = dict(overall)
    for heading, beginnings in (*GROUPS, ("Other", ("",))):
        rows = [left.pop(name) for name in list(left) if name.startswith(beginnings)]
        if rows:
            body.append(
                element(
                    "tr",
                    element("th", heading, colspan=str(6 + len(kinds)), scope="colgroup"),
                    class_="group",
                )
            )
            body += [_row(row, [by_kind[kind][row.metric.name] for kind in kinds], reach) for row in rows]
    head = element(
        "tr",
        *(
            element("th", text, scope="col")
            for text in ("Metric", "Before", "After", "Change, 95 % interval")
        ),
        element("th", f"Change in standard deviations (\u00b1{reach:g})", scope="col", class_="forest-head"),
        element("th", "Verdict", scope="col"),
        *(element("th", f"Change, {kind}", scope="col") for kind in kinds),
    )
    table = element("table", element("thead", head), element("tbody", *body), class_="figures")
    return join(
        element("div", table, class_="table-scroll"), _table_notes(list(overall.values()), kinds, by_kind)
    )


def metric_glossary(metrics: Sequence[Metric]) -> Markup:
    """What each metric says and what it cannot see."""
    rows = [
        element(
            "tr",
            element("th", metric.label, scope="row"),
            element("td", metric.meaning),
            element("td", metric.blind_spot),
        )
        for metric in metrics
    ]
    head = element(
        "tr", *(element("th", text, scope="col") for text in ("Metric", "What it says", "What it cannot see"))
    )
    table = element("table", element("thead", head), element("tbody", *rows), class_="glossary")
    summary = element("summary", "What each metric says, and what it cannot see")
    return element("details", summary, element("div", table, class_="table-scroll"))


def _row(row: Comparison, kinds: Sequence[Comparison], reach: float) -> Markup:
    decimals = row.metric.decimals
    return element(
        "tr",
        metric_name_cell(row.metric),
        element("td", number(row.before.mean, decimals), class_="num"),
        element("td", number(row.after.mean, decimals), class_="num"),
        change_cell(row),
        element("td", forest_mark(row, reach), class_="forest-cell"),
        element("td", verdict_chip(row)),
        *(change_cell(kind) for kind in kinds),
    )


def metric_name_cell(metric: Metric) -> Markup:
    """The head of a metric's line: which way is better, its label and unit, its meaning as a hint."""
    arrow = element("span", ARROWS[metric.better], class_="arrow", title=f"better: {metric.better}")
    return element("th", join(arrow, f" {metric_label(metric)}"), scope="row", title=metric.meaning)


def metric_label(metric: Metric) -> str:
    """The label with its unit."""
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def change_cell(row: Comparison, below: Markup | None = None) -> Markup:
    """A change in the colour of its verdict, above its interval and whatever else belongs there."""
    decimals = row.metric.decimals
    return element(
        "td",
        element(
            "span",
            signed(row.change.mean, decimals),
            class_=f"change verdict-{row.verdict.replace(' ', '-')}",
        ),
        element("span", bounds(row.change, decimals), class_="bounds"),
        below,
        class_="num",
    )


def axis_reach(rows: Sequence[Comparison]) -> float:
    """Half the width of the interval axis: the least of 0.5, 1, 2, 4, ... that holds nearly all of them."""
    ends = [
        abs(value) / row.spread
        for row in rows
        for value in (row.change.low, row.change.high, row.change.mean)
        if row.spread > 0 and math.isfinite(value)
    ]
    reach = 0.5
    while ends and reach < max(ends) and reach < 4:
        reach *= 2
    return reach


def _table_notes(
    rows: Sequence[Comparison], kinds: Sequence[str], by_kind: dict[str, dict[str, Comparison]]
) -> Markup:
    sizes = []
    if rows:
        sizes.append(counted(max(row.change.count + row.change.missing for row in rows), "clip") + " in all")
    for kind in kinds:
        of_kind = by_kind[kind].values()
        sizes.append(f"{max(row.change.count + row.change.missing for row in of_kind)} with {kind} prompts")
    notes = [
        f"{ARROWS['higher']} higher is better, {ARROWS['lower']} lower is better, {ARROWS['watch']} neither "
        "in itself. "
        f"{join_words(sizes)}. Intervals: bootstrap over whole prompts."
    ]
    missing = [row for row in rows if row.change.missing]
    if missing:
        parts = [
            f"{row.metric.label} on {row.change.missing} of {row.change.count + row.change.missing} pairs"
            for row in missing
        ]
        notes.append(f"Could not be measured, and left out rather than scored as zero: {'; '.join(parts)}.")
    return join(*(element("p", note, class_="note") for note in notes))
