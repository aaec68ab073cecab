"""The page's table of win rates against the reference."""

from collections.abc import Mapping
from typing import Any

from vggrpo.evaluation.catalogue import Metric
from vggrpo.evaluation.folder_report.contents import FolderContents
from vggrpo.evaluation.report.figures import metric_name_cell
from vggrpo.evaluation.report.markup import Markup, element, join

Row = Mapping[str, Any]
"""{"mean", "low", "high", "n", "wins", "ties", "losses"}."""


def win_rates_table(contents: FolderContents) -> Markup | None:
    """How often clips beat their counterparts, metric by metric; None where nothing was compared."""
    rates: Mapping[str, Mapping[str, Row | None]] = contents.summary.get("win_rates") or {}
    rows = [
        _row(metric, row)
        for metric in contents.metrics
        if (row := rates.get(metric.name, {}).get("all")) is not None and row["n"]
    ]
    if not rows:
        return None
    heads = ("Metric", "Win rate, 95 % interval", "Wins", "Ties", "Losses")
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    table = element("table", element("thead", head), element("tbody", *rows), class_="figures")
    note = (
        f"How often {contents.own.label} is better than {contents.reference_label} at the same prompt and "
        "seed. A tie counts half; 50 % is no difference."
    )
    return join(element("div", table, class_="table-scroll"), element("p", note, class_="note"))


def _row(metric: Metric, row: Row) -> Markup:
    bounds = None
    if row["low"] is not None:
        bounds = element("span", f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]", class_="bounds")
    rate = element("span", f"{100 * row['mean']:.1f} %", class_="mean")
    counts = (element("td", f"{row[name]:,}", class_="num") for name in ("wins", "ties", "losses"))
    return element("tr", metric_name_cell(metric), element("td", rate, bounds, class_="num"), *counts)
