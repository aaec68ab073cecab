"""The finished page about an evaluated folder: one HTML file that loads nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vggrpo import __version__
from vggrpo.evaluation.catalogue import Metric
from vggrpo.evaluation.folder_report.contents import FolderContents, read_contents
from vggrpo.evaluation.folder_report.tables import (
    failures_table,
    kinds_table,
    legend_note,
    means_table,
    not_run_table,
    notes_table,
)
from vggrpo.evaluation.folder_report.videos import videos_section
from vggrpo.evaluation.folder_report.win_rates import win_rates_table
from vggrpo.evaluation.folder_report.words import abstract, headline, warnings
from vggrpo.evaluation.intervals import Interval
from vggrpo.evaluation.report.families import by_family, telling
from vggrpo.evaluation.report.figures import metric_glossary, metric_label, tiles
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.numbers import number
from vggrpo.evaluation.report.shell import (
    code_block,
    footer,
    render_page,
    section,
    settings_block,
    title_block,
)
from vggrpo.evaluation.report.strips import Strip, pairs_chart, strip_chart
from vggrpo.evaluation.videos.folder import REPORT_NAME
from vggrpo.io import write_text

TILES = 5


def write_folder_report(output: Path) -> Path:
    """Writes `report.html` into an output folder of `vggrpo evaluate` and returns its path.

    The page is made of what the folder holds (clips.jsonl, summary.json, and the same of the reference) and
    of the video files that they name: a summary table, plots with intervals, videos in step, best and worst
    cases, failures with their reasons, settings and the command. Videos are embedded for a bounded number of
    clips, so that the file stays small whatever the folder's size. The same results make the same file.

    Raises:
        ConfigError: if the folder holds no finished evaluation.
        CorruptFileError: if its files are damaged.
        DiskFullError: if the space runs out.
    """
    path = Path(output) / REPORT_NAME
    write_text(path, render_folder_report(read_contents(Path(output))))
    return path


def render_folder_report(contents: FolderContents) -> str:
    """The page as text."""
    sections = [
        ("figures", "Figures", "Summary", _figures(contents)),
        ("plots", "Plots", "Clips, means and intervals", _plots(contents)),
        ("pairs", "Pairs", "Clip by clip against the reference", _pairs(contents)),
        ("videos", "Videos", "Videos", videos_section(contents)),
        ("failures", "Failures", "Failures and notes", _failures(contents)),
        ("settings", "Settings", "Settings and command", _settings(contents)),
    ]
    shown = [part for part in sections if part[3] is not None]
    return render_page(
        contents.own.label,
        {name: short for name, short, _, _ in shown},
        _header(contents),
        *(section(name, title, content) for name, _, title, content in shown if content is not None),
        footer(contents.created),
    )


def _header(contents: FolderContents) -> Markup:
    facts = [contents.created, f"vggrpo {__version__}"]
    parts: list[Markup | None] = [
        title_block("Video evaluation", contents.own.label, facts, abstract(contents)),
        element("h2", headline(contents), class_="headline"),
        _tiles(contents),
        *(element("p", text, class_="warning") for text in warnings(contents)),
    ]
    return element("header", *parts, id="top")


def _tiles(contents: FolderContents) -> Markup:
    """The most telling changes; without a reference, the most telling means."""
    chosen = contents.telling(TILES)
    if contents.reference is not None:
        changes = [contents.change(metric, "all") for metric in chosen]
        return tiles([change for change in changes if change is not None])
    means = [(metric, contents.mean(metric.name, "all")) for metric in chosen]
    return element(
        "div", *(_tile(metric, mean) for metric, mean in means if mean is not None), class_="tiles"
    )


def _tile(metric: Metric, mean: Interval) -> Markup:
    ends = f"[{number(mean.low, metric.decimals)}, {number(mean.high, metric.decimals)}]"
    return element(
        "div",
        element("div", metric_label(metric), class_="tile-label"),
        element("div", number(mean.mean, metric.decimals), class_="tile-value"),
        element("div", ends, class_="tile-bounds"),
        class_="tile",
        title=metric.meaning,
    )


def _figures(contents: FolderContents) -> Markup:
    kinds = kinds_table(contents)
    win_rates = win_rates_table(contents)
    not_run = not_run_table(contents)
    return join(
        means_table(contents),
        legend_note(contents),
        *([element("h3", "Static and dynamic scenes apart"), kinds] if kinds else []),
        *([element("h3", "Win rates"), win_rates] if win_rates else []),
        *([element("h3", "Not run"), not_run] if not_run else []),
        metric_glossary(contents.metrics),
    )


def _plots(contents: FolderContents) -> Markup | None:
    panels = []
    for metric in (metric for _, metrics in by_family(contents.metrics) for metric in metrics):
        strips = _strips(contents, metric)
        if any(np.isfinite(strip.values).any() for strip in strips):
            label = f"{metric.label}: clips, means and intervals"
            panels.append(_panel(metric, strip_chart(strips, label, metric.decimals)))
    if not panels:
        return None
    words = (
        "The dot is the mean and the bar its 95 % interval. Above it stand the clips: each as a tick, or "
        "their distribution where there are many."
    )
    legend = None
    if contents.reference is not None:
        legend = _legend((("tone-before", contents.reference_label), ("tone-after", contents.own.label)))
    return join(element("p", words, class_="lead"), legend, element("div", *panels, class_="panels"))


def _strips(contents: FolderContents, metric: Metric) -> list[Strip]:
    """For each kind of scene the reference's line, if there is one, and the own one beneath it."""
    strips: list[Strip] = []
    for subset in contents.subsets:
        label = subset
        for side, tone, mean in (
            (contents.reference, "tone-before", contents.reference_mean(metric.name, subset)),
            (contents.own, "tone-after", contents.mean(metric.name, subset)),
        ):
            if side is not None and mean is not None:
                values = side.values[metric.name][side.rows(None if subset == "all" else subset)]
                strips.append(Strip(label, tone, mean, values, side.label))
                label = ""
    return strips


def _pairs(contents: FolderContents) -> Markup | None:
    """Every directed metric of each clip against that of its counterpart."""
    if contents.reference is None:
        return None
    counterparts = contents.counterparts()
    own_rows, reference_rows = list(counterparts), list(counterparts.values())
    kinds = np.array([contents.own.clips[place].kind or "" for place in own_rows])
    known = [kind for kind in contents.subsets[1:] if (kinds == kind).any()]
    tones = {kind: f"series-{place}" for place, kind in enumerate(known)}
    groups = [(tone, kinds == kind) for kind, tone in tones.items()]
    groups.append(("tone-before" if known else "tone-after", ~np.isin(kinds, known)))
    panels = []
    for metric in telling(contents.metrics, len(contents.metrics)):
        own, reference = (
            contents.own.values[metric.name][own_rows],
            contents.reference.values.get(metric.name),
        )
        if reference is None or not np.isfinite(own + reference[reference_rows]).any():
            continue
        names = (contents.reference_label, contents.own.label)
        label = f"{metric.label}: {names[1]} over {names[0]}"
        panels.append(_panel(metric, pairs_chart(reference[reference_rows], own, groups, names, label)))
    if not panels:
        return None
    words = (
        "Each dot is one prompt and seed. On the dashed line nothing changed; where lower is better "
        "(\u2193), dots below it are better, where higher is better (\u2191), dots above it."
    )
    legend = _legend(tuple((tone, kind) for kind, tone in tones.items())) if known else None
    return join(element("p", words, class_="lead"), legend, element("div", *panels, class_="panels"))


def _panel(metric: Metric, chart: Markup) -> Markup:
    arrow = {"higher": " \u2191", "lower": " \u2193", "watch": ""}[metric.better]
    caption = element("figcaption", element("strong", f"{metric_label(metric)}{arrow}"))
    return element("figure", caption, chart, class_="panel")


def _legend(entries: Sequence[tuple[str, str]]) -> Markup:
    keys = [element("span", element("i", class_=f"key {tone}"), label) for tone, label in entries]
    return element("p", *keys, class_="legend")


def _failures(contents: FolderContents) -> Markup | None:
    failed, notes = failures_table(contents), notes_table(contents)
    if failed is None and notes is None:
        return None
    return join(
        *([element("h3", "Clips that failed"), failed] if failed else []),
        *([element("h3", "Notes on clips that were measured"), notes] if notes else []),
    )


def _settings(contents: FolderContents) -> Markup:
    summary = contents.summary
    metric_settings = summary.get("metric_settings")
    return join(
        element("h3", "Command"),
        code_block(str(summary["command"]), "command"),
        element("h3", "Settings"),
        settings_block(summary["settings"]),
        settings_block(
            metric_settings, "metric-settings", "Settings of the metrics, with versions and hashes"
        )
        if metric_settings
        else None,
    )
