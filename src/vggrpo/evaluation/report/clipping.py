"""How far updates moved the policy, and which of its steps the clip stopped: at the start and lately."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from vggrpo.evaluation.report.axes import Axes, value_range
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.numbers import number
from vggrpo.io import Histogram

TONES = ("tone-before", "tone-after")


@dataclass(frozen=True)
class ClippingSpan:
    """The updates of some iterations, pooled."""

    label: str
    ratio: Histogram
    """Transitions by (ratio - 1) / clip range."""
    clipped: Mapping[int, float]
    """Share of the transitions that the clip cut off, by denoising step."""


@dataclass(frozen=True)
class Clipping:
    """One or two spans of iterations: the first ones and, once there are more, the latest."""

    spans: Sequence[ClippingSpan]

    @classmethod
    def from_histograms(
        cls, records: Sequence[tuple[int, Mapping[str, Histogram]]], ratio: str, clipped: str, span: int
    ) -> Self | None:
        """From a run's histograms; None if no update had a transition.

        Args:
            records: by iteration, with the histograms by name.
            ratio, clipped: their names. The bins of `clipped` are the window's steps, equal in transitions.
            span: iterations to pool, less where there are fewer than twice as many.
        """
        found = [(step, entry[ratio], entry[clipped]) for step, entry in records if ratio in entry]
        if not found:
            return None
        size = max(1, min(span, len(found) // 2))
        parts = [found[:size], found[-size:]] if len(found) > 1 else [found]
        return cls([_pooled(part) for part in parts])


def _pooled(part: Sequence[tuple[int, Histogram, Histogram]]) -> ClippingSpan:
    first, last = part[0][0], part[-1][0]
    edges = part[0][1].edges
    counts = tuple(sum(bins) for bins in zip(*(ratio.counts for _, ratio, _ in part), strict=True))
    cut: dict[int, float] = {}
    transitions: dict[int, float] = {}
    for _, ratio, clipped in part:
        for edge, count in zip(clipped.edges, clipped.counts, strict=False):
            step = round(edge + 0.5)
            cut[step] = cut.get(step, 0.0) + count
            transitions[step] = transitions.get(step, 0.0) + ratio.total / len(clipped.counts)
    label = f"iterations {first} to {last}" if first < last else f"iteration {first}"
    return ClippingSpan(
        label, Histogram(edges, counts), {step: cut[step] / transitions[step] for step in sorted(cut)}
    )


def clipping_panels(data: Clipping) -> Markup:
    """The lead and both plots."""
    lead = (
        "The ratio says how much more likely the updated policy makes a denoising step than the policy that "
        "drew it. The shaded middle is the clip range: beyond it a step that is already pushed far enough "
        "adds no gradient. All mass in the middle means that clipping never acts; much at the ends, that "
        "updates are large for the range. The first update on a set of rollouts finds every ratio at 1."
    )
    latest = data.spans[-1]
    inside = _share_inside(latest.ratio)
    lead += f" In {latest.label}, {number(100 * inside, 0)} % of the steps stayed inside it."
    plots = [
        _panel("Ratio, in clip ranges from 1", data.spans, ratio_chart(data.spans)),
        _panel("Clipped share of each denoising step", data.spans, clipped_chart(data.spans)),
    ]
    return join(element("p", lead, class_="lead"), element("div", *plots, class_="panels"))


def _share_inside(ratio: Histogram) -> float:
    middles = [(low + high) / 2 for low, high in zip(ratio.edges[:-1], ratio.edges[1:], strict=True)]
    inside = sum(count for middle, count in zip(middles, ratio.counts, strict=True) if abs(middle) < 1)
    return inside / ratio.total


def _panel(title: str, spans: Sequence[ClippingSpan], chart: Markup) -> Markup:
    legend = [
        element("span", element("i", class_=f"key {tone}"), span.label)
        for tone, span in zip(_tones(spans), spans, strict=True)
    ]
    caption = element("figcaption", element("strong", title), element("span", *legend, class_="legend"))
    return element("figure", caption, chart, class_="panel")


def _tones(spans: Sequence[ClippingSpan]) -> Sequence[str]:
    return TONES if len(spans) > 1 else TONES[1:]


def ratio_chart(spans: Sequence[ClippingSpan]) -> Markup:
    """Share of the transitions in each bin, as outlines; the end bins hold what is beyond as well."""
    edges = spans[0].ratio.edges
    shares = [[count / span.ratio.total for count in span.ratio.counts] for span in spans]
    top = max(max(values) for values in shares)
    axes = Axes(360, 214, (edges[0], edges[-1]), (0.0, 1.08 * top))
    base = axes.y(0)
    left, right = (axes.x(max(edges[0], min(edges[-1], end))) for end in (-1.0, 1.0))
    marks = [
        element("rect", class_="clip-range", x=left, y=axes.top, width=right - left, height=base - axes.top)
    ]
    for tone, values in zip(_tones(spans), shares, strict=True):
        corners = [f"M{axes.x(edges[0]):.1f} {base:.1f}"]
        for low, high, value in zip(edges[:-1], edges[1:], values, strict=True):
            y = axes.y(value)
            corners.append(f"L{axes.x(low):.1f} {y:.1f} L{axes.x(high):.1f} {y:.1f}")
        outline = " ".join([*corners, f"L{axes.x(edges[-1]):.1f} {base:.1f}"])
        marks.append(element("path", class_=f"band {tone}", d=f"{outline}Z"))
        marks.append(element("path", class_=f"line outline {tone}", d=outline))
    reach = int(edges[-2])
    ticks = [(float(v), _end_label(v, reach)) for v in range(-reach, reach + 1) if v % 2 or v == 0]
    frame = axes.frame("(ratio \u2212 1) / clip range", "share of the steps", x_ticks=ticks)
    return axes.svg(frame, *marks, label="spread of the ratios")


def _end_label(value: int, reach: int) -> str:
    text = str(value).replace("-", "\u2212")
    return f"\u2264{text}" if value == -reach else f"\u2265{text}" if value == reach else text


def clipped_chart(spans: Sequence[ClippingSpan]) -> Markup:
    """Share of the clipped transitions of each denoising step, a bar each."""
    steps = sorted({step for span in spans for step in span.clipped})
    top = value_range([100 * share for span in spans for share in span.clipped.values()], include=[0.0])[1]
    axes = Axes(360, 214, (steps[0] - 0.6, steps[-1] + 0.6), (0.0, top))
    width = 0.8 * (axes.x(1) - axes.x(0)) / len(spans)
    marks = []
    for place, (tone, span) in enumerate(zip(_tones(spans), spans, strict=True)):
        for step, share in span.clipped.items():
            height = axes.y(0) - axes.y(100 * share)
            hint = element("title", f"{span.label}, step {step}: {number(100 * share, 1)} %")
            x = axes.x(step) + (place - len(spans) / 2) * width
            marks.append(
                element(
                    "rect", hint, class_=f"bar {tone}", x=x, y=axes.y(100 * share), width=width, height=height
                )
            )
    every = -(-len(steps) // 12)
    ticks = [(float(step), str(step)) for step in steps[::every]]
    frame = axes.frame("denoising step (0 is the noisiest)", "%", x_ticks=ticks)
    return axes.svg(frame, *marks, label="clipped share by denoising step")
