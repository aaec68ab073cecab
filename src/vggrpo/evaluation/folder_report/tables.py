"""The page's tables: means with intervals, kinds of scene apart, failures and what was not run."""

import math
from collections import Counter
from collections.abc import Sequence

from vggrpo.evaluation.catalogue import Metric, describe
from vggrpo.evaluation.comparison import Comparison
from vggrpo.evaluation.folder_report.contents import FolderContents
from vggrpo.evaluation.intervals import Interval
from vggrpo.evaluation.report.charts import forest_mark
from vggrpo.evaluation.report.families import by_family
from vggrpo.evaluation.report.figures import (
    ARROWS,
    axis_reach,
    change_cell,
    metric_name_cell,
    verdict_chip,
)
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.numbers import counted, number

MOST_LISTED = 200


def means_table(contents: FolderContents) -> Markup:
    """Every metric over all clips: the mean and, where there is a reference, its mean and the change."""
    changes = {change.metric.name: change for change in contents.changes()}
    reach = axis_reach(list(changes.values()))
    heads = ["Metric", *[contents.reference_label] * bool(changes), contents.own.label, "n"]
    head = [element("th", text, scope="col") for text in heads]
    if changes:
        title = f"Change in standard deviations (\u00b1{reach:g})"
        head += [
            element("th", "Change, 95 % interval", scope="col"),
            element("th", title, scope="col", class_="forest-head"),
            element("th", "Verdict", scope="col", class_="verdict-head"),
        ]
    body = []
    for heading, metrics in by_family(contents.metrics):
        body.append(_group(heading, len(head)))
        for metric in metrics:
            mean = contents.mean(metric.name, "all")
            cells = [metric_name_cell(metric)]
            if changes:
                cells.append(mean_cell(contents.reference_mean(metric.name, "all"), metric))
            cells += [mean_cell(mean, metric), _count_cell(mean)]
            if changes:
                cells += _change_cells(changes.get(metric.name), reach)
            body.append(element("tr", *cells))
    return _table(head, body)


def kinds_table(contents: FolderContents) -> Markup | None:
    """The same for static and dynamic scenes, beside each other; None without both words about the clips."""
    kinds = contents.subsets[1:]
    if not kinds:
        return None
    paired = bool(contents.changes())
    heads = ["Metric"]
    for kind in kinds:
        heads += [f"{kind.capitalize()} scenes", "n"] + ["Change"] * paired
    body = []
    for heading, metrics in by_family(contents.metrics):
        body.append(_group(heading, len(heads)))
        for metric in metrics:
            cells = [metric_name_cell(metric)]
            for kind in kinds:
                mean = contents.mean(metric.name, kind)
                cells += [mean_cell(mean, metric), _count_cell(mean)]
                if paired:
                    change = contents.change(metric, kind)
                    cells.append(change_cell(change) if change else element("td", "n/a", class_="num"))
            body.append(element("tr", *cells))
    return _table([element("th", text, scope="col") for text in heads], body)


def mean_cell(mean: Interval | None, metric: Metric) -> Markup:
    """A mean above its interval."""
    if mean is None or math.isnan(mean.mean):
        return element("td", "n/a", class_="num")
    ends = None
    if math.isfinite(mean.low):
        text = f"[{number(mean.low, metric.decimals)}, {number(mean.high, metric.decimals)}]"
        ends = element("span", text, class_="bounds")
    value = element("span", number(mean.mean, metric.decimals), class_="mean")
    return element("td", value, ends, class_="num")


def legend_note(contents: FolderContents) -> Markup:
    """How to read the tables."""
    words = (
        f"{ARROWS['higher']} higher is better, {ARROWS['lower']} lower is better, {ARROWS['watch']} neither "
        "in itself. Brackets: 95 % bootstrap intervals over whole prompts. n counts the clips that could be "
        "measured; the others are left out, never scored as zero."
    )
    if contents.reference is not None:
        words += (
            " A change is the mean over pairs of one prompt and seed, this folder minus the reference; it "
            "counts as one only where its interval leaves out zero, without a correction for their number."
        )
    return element("p", words, class_="note")


def not_run_table(contents: FolderContents) -> Markup | None:
    """Metrics that were asked for and could not be had, with the reason."""
    reasons = contents.summary.get("not_run") or {}
    if not reasons:
        return None
    rows = [
        element("tr", element("th", _label(name), scope="row"), element("td", reason))
        for name, reason in reasons.items()
    ]
    return _listing(("Metric", "Why it was not run"), rows)


def failures_table(contents: FolderContents) -> Markup | None:
    """Clips that could not be measured, each with its reason."""
    failed = [("", clip) for clip in contents.own.failed]
    if contents.reference is not None:
        failed += [(contents.reference_label, clip) for clip in contents.reference.failed]
    if not failed:
        return None
    rows = [
        element(
            "tr",
            element("th", f"{whose}: {clip.name}" if whose else clip.name, scope="row"),
            element("td", clip.failure),
        )
        for whose, clip in failed[:MOST_LISTED]
    ]
    return join(_listing(("Clip", "Why it could not be measured"), rows), _rest(len(failed), "clip"))


def notes_table(contents: FolderContents) -> Markup | None:
    """What was noted about clips that were measured: equal words once, with the clips that they are about."""
    about: Counter[str] = Counter()
    first: dict[str, str] = {}
    for clip in contents.own.clips:
        for note in dict.fromkeys(clip.notes):
            about[note] += 1
            first.setdefault(note, clip.name)
    if not about:
        return None
    rows = []
    for note, count in about.most_common(MOST_LISTED):
        clips = first[note] if count == 1 else f"{counted(count, 'clip')}, first {first[note]}"
        rows.append(element("tr", element("td", note), element("td", clips)))
    return join(_listing(("Note", "Clips"), rows), _rest(len(about), "note"))


def _label(name: str) -> str:
    return describe(name).label


def _change_cells(change: Comparison | None, reach: float) -> list[Markup]:
    if change is None:
        return [element("td", "n/a", class_="num"), element("td"), element("td")]
    return [
        change_cell(change),
        element("td", forest_mark(change, reach), class_="forest-cell"),
        element("td", verdict_chip(change)),
    ]


def _group(heading: str, columns: int) -> Markup:
    return element("tr", element("th", heading, colspan=str(columns), scope="colgroup"), class_="group")


def _count_cell(mean: Interval | None) -> Markup:
    return element("td", "0" if mean is None else f"{mean.count:,}", class_="num count")


def _table(head: Sequence[Markup], body: Sequence[Markup]) -> Markup:
    table = element(
        "table", element("thead", element("tr", *head)), element("tbody", *body), class_="figures means"
    )
    return element("div", table, class_="table-scroll")


def _listing(heads: Sequence[str], rows: Sequence[Markup]) -> Markup:
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    table = element("table", element("thead", head), element("tbody", *rows), class_="glossary")
    return element("div", table, class_="table-scroll")


def _rest(count: int, noun: str) -> Markup | None:
    if count <= MOST_LISTED:
        return None
    return element("p", f"{counted(count - MOST_LISTED, 'more ' + noun)}: see clips.jsonl.", class_="note")
