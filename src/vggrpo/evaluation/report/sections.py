"""The sections of the page. Each returns its content, or None where the data hold nothing for it."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

from vggrpo.evaluation.comparison import Agreement, rows_of
from vggrpo.evaluation.report.charts import (
    SMOOTH_FROM,
    agreement_chart,
    camera_path_chart,
    curve_chart,
    layer_chart,
    motion_trace,
    timing_chart,
)
from vggrpo.evaluation.report.clipping import clipping_panels
from vggrpo.evaluation.report.data import Curve, ReportData, VideoPair
from vggrpo.evaluation.report.figures import figure_table, metric_glossary
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.media import side_by_side, video_uri
from vggrpo.evaluation.report.numbers import counted, duration, milliseconds, number
from vggrpo.evaluation.report.player import player, video_tag
from vggrpo.evaluation.report.safeguards import alarms, gate
from vggrpo.evaluation.report.scenes import scenes
from vggrpo.evaluation.report.words import join_words, outcome


def videos(data: ReportData) -> Markup | None:
    """Pairs of videos under one play control and one timeline."""
    if not data.videos:
        return None
    fps, length = data.facts.fps, max(len(pair.before) for pair in data.videos)
    words = (
        "Each pair starts from the same prompt and the same noise; the left video is the base model's, the "
        "right one the aligned model's. All videos run on one clock. Beneath each pair, the speed of the "
        "dominant optical flow in pixels per frame, grey before and blue after: a steady camera draws a "
        "smooth line."
    )
    if any(pair.paths for pair in data.videos):
        words += " Below it, the camera's path from above, as the uncut geometry model sees it in the video."
    lead = element("p", f"{words} {data.video_choice}".strip(), class_="lead")
    cards = [_card(pair, fps, length) for pair in data.videos]
    wall = element("div", *cards, class_="wall")
    return player(lead, wall, fps=fps, length=length)


def _card(pair: VideoPair, fps: float, length: int) -> Markup:
    uri = video_uri(side_by_side(pair.before, pair.after, length), fps)
    video = video_tag(uri, f"before and after: {pair.prompt}")
    badges = [element("span", side, class_=f"badge {side}") for side in ("before", "after")]
    before, after = pair.speeds
    rows = [
        element(
            "tr",
            element("th", label, scope="row"),
            element("td", number(a, decimals), class_="num"),
            element("td", "\u2192", class_="to"),
            element("td", number(b, decimals), class_="num"),
        )
        for label, a, b, decimals in pair.figures
    ]
    caption = element(
        "figcaption",
        element("span", pair.kind, class_="kind") if pair.kind else None,
        element("span", pair.prompt, class_="prompt"),
    )
    return element(
        "figure",
        element("div", video, *badges, class_="pair"),
        caption,
        element("div", motion_trace(before, after), class_="trace"),
        element(
            "div",
            _path(pair),
            element("table", *rows, class_="small") if rows else None,
            class_="beneath",
        ),
        class_="card",
    )


def _path(pair: VideoPair) -> Markup | None:
    """The camera's paths, or why they are missing; None where none were asked for."""
    if pair.paths:
        return element("div", camera_path_chart(*pair.paths), class_="path")
    return element("div", pair.no_paths, class_="note path") if pair.no_paths else None


def figures(data: ReportData) -> Markup | None:
    """The outcome in words, the table with intervals, and the glossary."""
    if not data.comparisons:
        return None
    return join(
        *(element("p", text) for text in outcome(data)),
        figure_table(data.comparisons),
        metric_glossary([row.metric for row in rows_of(data.comparisons, "all").values()]),
    )


def curves(data: ReportData) -> Markup | None:
    """One plot for each panel."""
    drawn = [curve for curve in data.curves if any(v == v for v in curve.values)]
    if not drawn:
        return None
    order = list(dict.fromkeys(curve.panel for curve in drawn))
    panels = groupby(sorted(drawn, key=lambda curve: order.index(curve.panel)), key=lambda curve: curve.panel)
    plots = [_panel(name, list(members)) for name, members in panels]
    lead = None
    if any(len(curve.values) >= SMOOTH_FROM for curve in drawn):
        lead = element(
            "p", "Faint lines are the measured values, strong lines their running average.", class_="lead"
        )
    return join(lead, element("div", *plots, class_="panels"))


def clipping(data: ReportData) -> Markup | None:
    """Spread of the ratios and clipped steps."""
    return clipping_panels(data.clipping) if data.clipping is not None else None


def _panel(name: str, members: list[Curve]) -> Markup:
    legend = [
        element("span", element("i", class_=f"key series-{place % 4}"), curve.label)
        for place, curve in enumerate(members)
        if len(members) > 1
    ]
    return element(
        "figure",
        element("figcaption", element("strong", name), element("span", *legend, class_="legend")),
        curve_chart(members, members[0].x_label),
        class_="panel",
    )


def layer_search(data: ReportData) -> Markup | None:
    """Errors over the candidate stitch points."""
    search = data.layer_search
    if search is None:
        return None
    lead = (
        "At every candidate, a convolution from latents to the geometry model's tokens was fitted in closed "
        "form on "
        f"{counted(search.fit_clips, 'clip')} and judged on "
        f"{counted(search.held_out_clips, 'held-out clip')}. The model was "
        f"entered at {search.chosen}."
    )
    first, *_ = search.errors.values()
    best = search.names[min(range(len(first)), key=lambda i: first[i])]
    if best != search.chosen:
        lead += f" The tokens themselves fit best at {best}."
    plots = [
        element(
            "figure",
            element("figcaption", element("strong", label[0].upper() + label[1:])),
            layer_chart(search.names, errors, search.chosen, ""),
            class_="panel",
        )
        for label, errors in search.errors.items()
    ]
    return join(element("p", lead, class_="lead"), element("div", *plots, class_="panels"))


def agreement(data: ReportData) -> Markup | None:
    """Rewards through the LGM against the teacher's, and the LGM's errors."""
    by_reward: dict[str, list[tuple[str, Agreement]]] = {}
    for whose, entries in data.agreement.items():
        for entry in entries:
            if entry.correlation.count:
                by_reward.setdefault(entry.reward, []).append((whose, entry))
    plots = [_agreement_panel(reward, sets) for reward, sets in by_reward.items()]
    rows = [
        element(
            "tr",
            element("th", f.label, scope="row"),
            element(
                "td", number(f.value, f.decimals), element("span", f" {f.unit}", class_="unit"), class_="num"
            ),
            element("td", f.note),
        )
        for f in data.fidelity
    ]
    if not plots and not rows:
        return None
    lead = element(
        "p",
        "A reward through latents is only worth training on where it ranks clips as the uncut geometry model "
        "does on the "
        "decoded frames. Each dot is one held-out generated clip; on the dashed line both agree exactly.",
        class_="lead",
    )
    table = element("table", element("tbody", *rows), class_="glossary") if rows else None
    return join(
        lead if plots else None, element("div", *plots, class_="panels scatter") if plots else None, table
    )


def _agreement_panel(reward: str, sets: list[tuple[str, Agreement]]) -> Markup:
    legend = []
    for place, (whose, entry) in enumerate(sets):
        rho = entry.correlation
        ends = f" [{number(rho.low, 2)}, {number(rho.high, 2)}]" if rho.low == rho.low else ""
        text = f"{whose}: Spearman {number(rho.mean, 2)}{ends}, {counted(rho.count, 'clip')}"
        legend.append(element("div", element("i", class_=f"key series-{place % 4}"), text))
    title = element("strong", f"{reward.replace('_', ' ').capitalize()} reward")
    caption = element("figcaption", title, element("div", *legend, class_="legend"))
    return element("figure", caption, agreement_chart([entry for _, entry in sets]), class_="panel")


def timing(data: ReportData) -> Markup | None:
    """Latent against pixel reward time."""
    t = data.timing
    if t is None:
        return None
    word = "faster" if t.speedup > 1 else "slower"
    factor = t.speedup if t.speedup > 1 else 1 / t.speedup
    lead = (
        f"For a batch of {t.batch_size}, from latents to rewards: {milliseconds(t.latent_total.median)} "
        "through the latent "
        f"geometry model, {milliseconds(t.pixel_total.median)} through decoding and the uncut model: the "
        "latent path is "
        f"{number(factor, 1)} times {word}. Median of {counted(len(t.latent_total.seconds), 'turn')} in "
        "which the two took "
        f"turns; whiskers are quartiles; {t.device}, {counted(t.threads, 'thread')}."
    )
    if t.peak_bytes:
        peaks = [f"{path} {number(size / 2**30, 2)} GiB" for path, size in t.peak_bytes.items()]
        lead += f" Peak memory on top of the weights: {join_words(peaks)}."
    chart = timing_chart(
        {"through latents": t.latent, "through pixels": t.pixel},
        {"through latents": t.latent_total, "through pixels": t.pixel_total},
    )
    phases = [
        f"{path}: " + ", ".join(f"{phase} {milliseconds(timing.median)}" for phase, timing in times.items())
        for path, times in (("Through latents", t.latent), ("through pixels", t.pixel))
    ]
    note = element("p", "; ".join(phases) + ".", class_="note")
    return join(element("p", lead, class_="lead"), element("div", chart, class_="wide"), note)


def stages(data: ReportData) -> Markup | None:
    """What was done, stage by stage, with its share of the time."""
    if not data.stages:
        return None
    total = sum(stage.seconds for stage in data.stages) or 1.0
    items = [
        element(
            "li",
            element(
                "div",
                element("strong", s.name),
                element("span", duration(s.seconds), class_="time"),
                class_="stage-head",
            ),
            element("div", element("i", style=f"width:{100 * s.seconds / total:.1f}%"), class_="share"),
            element("p", s.words),
        )
        for s in data.stages
    ]
    return element("ol", *items, class_="stages")


@dataclass(frozen=True)
class Section:
    """A section's heading, its short name in the navigation, and what builds its content."""

    title: str
    short: str
    build: Callable[[ReportData], Markup | None]


SECTIONS: dict[str, Section] = {
    "videos": Section("Before and after", "Videos", videos),
    "scenes": Section("4D scenes", "Scenes", scenes),
    "figures": Section("Key figures", "Figures", figures),
    "curves": Section("Training", "Training", curves),
    "clipping": Section("What the clip does", "Clipping", clipping),
    "layer_search": Section("Where to enter the geometry model", "Stitching", layer_search),
    "alarms": Section("Alarms", "Alarms", alarms),
    "gate": Section("The gate before training", "Gate", gate),
    "agreement": Section("How far the latent reward can be trusted", "Trust", agreement),
    "timing": Section("What a reward costs", "Cost", timing),
    "stages": Section("What was done", "Stages", stages),
}
"""By name, in the order of the page."""
