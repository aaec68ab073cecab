"""Plots of clips: means with intervals above the clips' own values, and pairs of clips against each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggrpo.evaluation.intervals import Interval
from vggrpo.evaluation.report.axes import Axes, value_range
from vggrpo.evaluation.report.markup import Markup, element
from vggrpo.evaluation.report.numbers import number

FENCE = 3.0
"""Interquartile ranges beyond the quartiles where the axis ends at the latest: one clip gone wrong must not
squeeze all others together.
"""
FEWEST_FOR_OUTLINE = 40
"""Of fewer clips every one is a tick; of more, their distribution is an outline."""
BINS = 48


@dataclass(frozen=True, eq=False)
class Strip:
    """One line of the plot."""

    label: str
    """At the left; empty where it is that of the line above."""
    tone: str
    """Class that gives the colour: "tone-before", "tone-after", "series-0" ..."""
    mean: Interval
    values: NDArray[np.float64]
    """Of the clips [N]; NaN is left out."""
    hint: str = ""


def strip_chart(strips: Sequence[Strip], label: str, decimals: int, left: float = 62) -> Markup:
    """A line a strip: the distribution of its clips, their mean and its interval. Clips beyond the axis are
    counted at its end; a strip with a label stands apart from the one above.

    Raises:
        ValueError: if no strip holds a finite value.
    """
    row, gap, bottom = 29.0, 9.0, 27.0
    gaps = [gap if place and strip.label else 0.0 for place, strip in enumerate(strips)]
    ends = [end for strip in strips for end in (strip.mean.mean, strip.mean.low, strip.mean.high)]
    inner = [float(q) for strip in strips for q in _inner(strip.values)]
    axes = Axes(
        360,
        row * len(strips) + sum(gaps) + bottom + 4,
        value_range([*ends, *inner]),
        (0.0, 1.0),
        left=left,
        right=8,
        top=4,
        bottom=bottom,
    )
    marks: list[Markup] = []
    for place, strip in enumerate(strips):
        base = axes.top + row * (place + 1) + sum(gaps[: place + 1]) - 9
        if strip.label:
            marks.append(
                element("text", strip.label, class_="tick", x=left - 8, y=base + 2, text_anchor="end")
            )
        marks.append(element("line", class_="grid", x1=left, x2=axes.width - axes.right, y1=base, y2=base))
        marks.append(_clips(axes, strip, base))
        marks += _mean(axes, strip, base, decimals)
    return axes.svg(axes.frame(y_ticks=[], x_grid=True), *marks, label=label)


def pairs_chart(
    reference: NDArray[np.float64],
    own: NDArray[np.float64],
    groups: Sequence[tuple[str, NDArray[np.bool_]]],
    names: tuple[str, str],
    label: str,
) -> Markup:
    """Each clip (upwards) over its counterpart (to the right), on one scale, with the line of no change.

    Args:
        reference, own: [N] pairs; a pair with a NaN is left out.
        groups: classes that give colours, each with the pairs [N] that it holds.
        names: of the reference and of the own clips.
        label: what a screen reader says.

    Raises:
        ValueError: if there is no pair.
    """
    both = np.concatenate([reference, own])[np.tile(np.isfinite(reference) & np.isfinite(own), 2)]
    scale = value_range([float(q) for q in _inner(both)])
    axes = Axes(360, 260, scale, scale, left=66, bottom=38)
    marks = [axes.polyline(scale, scale, "diagonal")]
    inside = (reference >= scale[0]) & (reference <= scale[1]) & (own >= scale[0]) & (own <= scale[1])
    for tone, members in groups:
        chosen = np.flatnonzero(inside & members)
        marks.append(_dots([(axes.x(reference[i]), axes.y(own[i])) for i in chosen], tone))
    beyond = int(np.isfinite(reference + own).sum() - inside.sum())
    if beyond:
        marks.append(element("text", f"{beyond} beyond", class_="tick", x=axes.left + 6, y=axes.top + 12))
    return axes.svg(axes.frame(names[0], names[1], x_grid=True), *marks, label=label)


def _inner(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least and the greatest value that is no outlier; empty without a finite value."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return finite
    low, high = np.quantile(finite, [0.25, 0.75])
    # Where half of the values are the same one, the others are no outliers.
    reach = FENCE * (high - low) or float("inf")
    inner = finite[(finite >= low - reach) & (finite <= high + reach)]
    return np.array([inner.min(), inner.max()])


def _clips(axes: Axes, strip: Strip, base: float) -> Markup:
    low, high = axes.x_range
    finite = strip.values[np.isfinite(strip.values)]
    shown = finite[(finite >= low) & (finite <= high)]
    parts: list[Markup] = []
    if len(finite) < FEWEST_FOR_OUTLINE:
        path = "".join(f"M{axes.x(v):.1f} {base - 10:.1f}v6" for v in sorted(shown))
        parts.append(element("path", class_=f"rug {strip.tone}", d=path) if path else Markup())
    else:
        counts, edges = np.histogram(shown, BINS, axes.x_range)
        smooth = np.convolve(counts, [0.06, 0.24, 0.4, 0.24, 0.06], mode="same")
        middles = (edges[:-1] + edges[1:]) / 2
        tops = [
            f"{axes.x(v):.1f} {base - 21 * t:.1f}"
            for v, t in zip(middles, smooth / smooth.max(), strict=True)
        ]
        outline = f"M{axes.x(low):.1f} {base:.1f} L{' L'.join(tops)} L{axes.x(high):.1f} {base:.1f}Z"
        parts.append(element("path", class_=f"band {strip.tone}", d=outline))
    beyond = len(finite) - len(shown)
    if beyond:
        text = f"{beyond} beyond"
        parts.append(element("text", text, class_="tick", x=axes.width - 10, y=base - 5, text_anchor="end"))
    return Markup("".join(parts))


def _mean(axes: Axes, strip: Strip, base: float, decimals: int) -> list[Markup]:
    mean = strip.mean
    if not math.isfinite(mean.mean):
        return []
    hint = f"{strip.hint}: {number(mean.mean, decimals)}"
    marks = []
    if math.isfinite(mean.low):
        hint += f" [{number(mean.low, decimals)}, {number(mean.high, decimals)}]"
        ends = {"x1": axes.x(mean.low), "x2": axes.x(mean.high), "y1": base, "y2": base}
        marks.append(element("line", class_=f"span {strip.tone}", **ends))
    title = element("title", f"{hint}, n = {mean.count}")
    dot = element("circle", title, class_=f"dot {strip.tone}", cx=axes.x(mean.mean), cy=base, r=4.2)
    return [*marks, dot]


def _dots(places: Sequence[tuple[float, float]], tone: str) -> Markup:
    """Many dots as one path of short round-capped strokes: a thousand circles would make the page heavy."""
    path = "".join(f"M{x:.1f} {y:.1f}h.01" for x, y in places)
    return element("path", class_=f"dots {tone}", d=path) if path else Markup()
