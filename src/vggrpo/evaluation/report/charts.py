"""The report's plots, each a function from numbers to SVG."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vggrpo.evaluation.comparison import Agreement, Comparison
from vggrpo.evaluation.report.axes import Axes, tick_labels, ticks, value_range
from vggrpo.evaluation.report.data import Curve
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.numbers import bounds, milliseconds, number, signed, significant
from vggrpo.evaluation.timing import Timing

SMOOTHING = 0.85
"""Share that an exponential average keeps from one point to the next."""
SMOOTH_FROM = 24
"""Curves of fewer points are drawn as they are."""
SHORTEST_PATH = 0.02
"""Median depths; a shorter camera path is not enlarged any further."""


def curve_chart(curves: Sequence[Curve], x_label: str = "iteration") -> Markup:
    """Curves over one axis: band (if any), measured values, and for long ones their running average."""
    steps = [step for curve in curves for step in curve.steps]
    values = [v for curve in curves for v in (*curve.values, *(curve.low or ()), *(curve.high or ()))]
    y_range = value_range(values)
    longest = max(len(label) for label in tick_labels(ticks(*y_range)))
    axes = Axes(360, 214, value_range(steps, padding=0.02), y_range, left=max(46, 6.5 * longest + 10))
    marks: list[Markup] = []
    for place, curve in enumerate(curves):
        colour = f"series-{place % 4}"
        if curve.low is not None and curve.high is not None:
            marks.append(_band(axes, curve.steps, curve.low, curve.high, colour))
        is_long = len(curve.values) >= SMOOTH_FROM
        marks.append(axes.polyline(curve.steps, curve.values, f"{colour} faint" if is_long else colour))
        if is_long:
            marks.append(axes.polyline(curve.steps, running_average(curve.values), colour))
        else:
            marks += [
                _dot(axes.x(x), axes.y(y), 2.6, colour, f"{curve.label}, {x_label} {x:g}: {significant(y)}")
                for x, y in zip(curve.steps, curve.values, strict=True)
                if math.isfinite(y)
            ]
    names = ", ".join(curve.label for curve in curves)
    # An iteration is a whole number, so no tick lies between two.
    places = [place for place in ticks(*axes.x_range, target=5) if place == round(place)]
    whole = list(zip(places, tick_labels(places), strict=True))
    return axes.svg(axes.frame(x_label, x_ticks=whole), *marks, label=f"{names} over {x_label}")


def running_average(values: Sequence[float], keep: float = SMOOTHING) -> list[float]:
    """Exponential average without start-up bias; values that are not finite are skipped."""
    total = weight = 0.0
    averages = []
    for value in values:
        if math.isfinite(value):
            total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        averages.append(total / weight if weight else float("nan"))
    return averages


def layer_chart(names: Sequence[str], errors: Sequence[float], chosen: str, y_label: str) -> Markup:
    """One error over the stitch points in the order of the network; the chosen point stands out."""
    axes = Axes(360, 226, (-0.5, len(names) - 0.5), value_range(errors, include=[0.0], padding=0.08), left=46)
    every = math.ceil(len(names) / 14)
    labels = [(float(i), name) for i, name in enumerate(names) if i % every == 0 or name == chosen]
    places = [float(i) for i in range(len(names))]
    at = names.index(chosen) if chosen in names else None
    marks = [axes.polyline(places, errors, "series-1")]
    if at is not None:
        base = axes.height - axes.bottom
        x = axes.x(at)
        marks.insert(0, element("line", class_="chosen", x1=x, x2=x, y1=axes.top, y2=base))
    for i, (name, error) in enumerate(zip(names, errors, strict=True)):
        if math.isfinite(error):
            is_chosen = i == at
            marks.append(
                _dot(
                    axes.x(i),
                    axes.y(error),
                    5 if is_chosen else 3.2,
                    "series-0" if is_chosen else "series-1",
                    f"{name}: {significant(error)}",
                )
            )
    return axes.svg(
        axes.frame("stitch point", y_label, x_ticks=labels), *marks, label=f"{y_label} by stitch point"
    )


def agreement_chart(agreements: Sequence[Agreement]) -> Markup:
    """LGM reward (vertical) against teacher reward (horizontal), both on one scale, with the diagonal of
    agreement.

    One colour for each entry; all must be of the same reward.
    """
    sets = [
        [(t, z) for t, z in zip(a.teacher, a.latent, strict=True) if math.isfinite(t) and math.isfinite(z)]
        for a in agreements
    ]
    both = value_range([value for pairs in sets for pair in pairs for value in pair])
    axes = Axes(420, 380, both, both, left=54)
    dots = [
        _dot(
            axes.x(t), axes.y(z), 3.6, f"series-{place % 4} open", f"teacher {number(t)}, latent {number(z)}"
        )
        for place, pairs in enumerate(sets)
        for t, z in pairs
    ]
    return axes.svg(
        axes.frame("teacher on decoded frames", "LGM on latents", x_grid=True),
        axes.polyline(both, both, "diagonal"),
        *dots,
        label=f"{agreements[0].reward}: LGM against teacher",
    )


def timing_chart(paths: Mapping[str, Mapping[str, Timing]], totals: Mapping[str, Timing]) -> Markup:
    """One bar a path, stacked from the phases' medians, with the quartiles of the total as a whisker."""
    longest = max(max(total.quartiles[1], total.median) for total in totals.values())
    row, left, width = 64, 118, 760
    height = row * len(paths) + 44
    axes = Axes(width, height, (0.0, longest * 1.16), (0.0, 1.0), left=left, right=10, top=4, bottom=40)
    marks: list[Markup] = []
    for i, (path, phases) in enumerate(paths.items()):
        top, edge = axes.top + i * row + 12, 0.0
        total = totals[path]
        marks.append(element("text", path, class_="bar-name", x=left - 12, y=top + 21, text_anchor="end"))
        scale = total.median / sum(phase.median for phase in phases.values())
        for j, (phase, timing) in enumerate(phases.items()):
            x0, x1 = axes.x(edge), axes.x(edge + timing.median * scale)
            edge += timing.median * scale
            hint = element("title", f"{phase}: {milliseconds(timing.median)}")
            shade = f"bar series-{0 if i == 0 else 1} shade-{j}"
            marks.append(
                element("rect", hint, class_=shade, x=x0, y=top, width=max(x1 - x0, 0.5), height=33.0)
            )
            if x1 - x0 > 7 * len(phase) + 14:
                marks.append(
                    element(
                        "text", phase, class_="bar-text", x=(x0 + x1) / 2, y=top + 21, text_anchor="middle"
                    )
                )
        low, high = (axes.x(q) for q in total.quartiles)
        middle = top + 16.5
        marks.append(
            element(
                "path",
                class_="whisker",
                d=f"M{low:.2f} {middle}H{high:.2f}M{low:.2f} {middle - 5}v10M{high:.2f} {middle - 5}v10",
            )
        )
        end = max(axes.x(edge), high) + 8
        marks.append(element("text", milliseconds(total.median), class_="bar-value", x=end, y=top + 21))
    label = "; ".join(f"{path}: {milliseconds(total.median)}" for path, total in totals.items())
    return axes.svg(axes.frame("seconds for the batch, median", y_ticks=[], x_grid=True), *marks, label=label)


def forest_mark(row: Comparison, reach: float) -> Markup:
    """A change and its interval, in standard deviations of the metric before; `reach` is half the axis."""
    width, height, middle = 168.0, 22.0, 84.0

    def place(value: float) -> float:
        scaled = value / row.spread / reach if row.spread > 0 else 0.0
        return middle + max(-1.0, min(1.0, scaled)) * (middle - 5)

    parts = [element("line", class_="zero", x1=middle, x2=middle, y1=0.0, y2=height)]
    if math.isfinite(row.change.mean):
        colour = f"verdict-{row.verdict.replace(' ', '-')}"
        if math.isfinite(row.change.low):
            low, high = place(row.change.low), place(row.change.high)
            parts.append(
                element("line", class_=f"reach {colour}", x1=low, x2=high, y1=height / 2, y2=height / 2)
            )
        decimals = row.metric.decimals
        hint = f"{signed(row.change.mean, decimals)} {bounds(row.change, decimals)}"
        parts.append(_dot(place(row.change.mean), height / 2, 4.2, colour, hint))
    return element(
        "svg",
        join(*parts),
        class_="forest",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label="interval",
    )


def motion_trace(before: Sequence[float], after: Sequence[float]) -> Markup:
    """Speed of the dominant motion over the clip, before and after, with a playhead that the page moves."""
    length = len(before)
    axes = Axes(
        520,
        96,
        (0.0, float(length)),
        (0.0, value_range([*before, *after, 0.5])[1]),
        left=34,
        right=8,
        top=8,
        bottom=20,
    )
    middles = [i + 0.5 for i in range(length)]
    playhead = element(
        "line",
        class_="playhead",
        x1=axes.x(0),
        x2=axes.x(0),
        y1=axes.top,
        y2=axes.height - axes.bottom,
        data_from=axes.x(0),
        data_to=axes.x(length),
    )
    return axes.svg(
        axes.frame(x_ticks=[]),
        axes.polyline(middles, before, "before"),
        axes.polyline(middles, after, "after"),
        playhead,
        label="speed of the dominant optical flow in pixels per frame, before and after",
    )


def camera_path_chart(before: NDArray[np.float64], after: NDArray[np.float64]) -> Markup:
    """Both camera paths [V, 3], finite, from above: x to the right and z (ahead) upwards, at one scale."""
    width, height, margin = 250.0, 172.0, 14.0
    points = np.concatenate([before, after])[:, [0, 2]]
    low, high = points.min(axis=0), points.max(axis=0)
    reach = max((high - low).max() / 2, SHORTEST_PATH / 2)
    middle, scale = (low + high) / 2, (height / 2 - margin) / reach
    x_reach, y_reach = width / 2 / scale, height / 2 / scale
    axes = Axes(
        width,
        height,
        (middle[0] - x_reach, middle[0] + x_reach),
        (middle[1] - y_reach, middle[1] + y_reach),
        left=0,
        right=0,
        top=0,
        bottom=0,
    )
    marks = [_dot(axes.x(0.0), axes.y(0.0), 5.0, "start", "view 0")]
    for name, path in (("before", before), ("after", after)):
        marks.append(axes.polyline(path[:, 0].tolist(), path[:, 2].tolist(), name))
        marks += [
            _dot(axes.x(x), axes.y(z), 2.6, name, f"{name}, view {view}")
            for view, (x, z) in enumerate(path[:, [0, 2]].tolist())
        ]
    bar = _round_length(2 * reach / 3)
    at = height - 6
    ruler = [
        element("line", class_="axis", x1=8.0, x2=8.0 + bar * scale, y1=at, y2=at),
        element("text", f"{bar:g} of the depth", class_="tick", x=8.0, y=at - 5),
    ]
    return axes.svg(*marks, *ruler, label="the camera's path from above, before and after")


def _round_length(length: float) -> float:
    """The greatest of 1, 2, 5 times a power of ten that is no longer than `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= length * (1 + 1e-9))


def _band(axes: Axes, x: Sequence[float], low: Sequence[float], high: Sequence[float], class_: str) -> Markup:
    rows = [(a, b, c) for a, b, c in zip(x, low, high, strict=True) if math.isfinite(b) and math.isfinite(c)]
    if len(rows) < 2:
        return Markup()
    forth = [f"{axes.x(a):.2f} {axes.y(c):.2f}" for a, _, c in rows]
    back = [f"{axes.x(a):.2f} {axes.y(b):.2f}" for a, b, _ in reversed(rows)]
    return element("path", class_=f"band {class_}", d="M" + " L".join(forth + back) + "Z")


def _dot(x: float, y: float, radius: float, class_: str, hint: str) -> Markup:
    return element("circle", element("title", hint), class_=f"dot {class_}", cx=x, cy=y, r=float(radius))
