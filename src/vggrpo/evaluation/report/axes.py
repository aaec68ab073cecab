"""Plot areas as SVG: scales, ticks, grid and labels. Colours and fonts come from the page's style sheet."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.numbers import number


def value_range(
    values: Iterable[float], include: Sequence[float] = (), padding: float = 0.06
) -> tuple[float, float]:
    """The range of the finite values and of `include`, widened so that no mark touches the frame.

    It does not reach below zero where no value does.

    Raises:
        ValueError: if there is no finite value.
    """
    finite = [v for v in (*values, *include) if math.isfinite(v)]
    if not finite:
        raise ValueError("there is no finite value to plot; leave the plot out and say why")
    low, high = min(finite), max(finite)
    if low == high:
        return (0.0, 1.0) if low == 0 else (low - 0.1 * abs(low), low + 0.1 * abs(low))
    margin = padding * (high - low)
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def ticks(low: float, high: float, target: int = 4) -> list[float]:
    """About `target` round numbers (1, 2, 2.5 or 5 times a power of ten apart) within [low, high]."""
    raw = (high - low) / max(target, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda candidate: abs(candidate - raw))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Tick values with just the decimals that tell them apart; in powers of ten where that takes too many."""
    if len(values) < 2:
        return [number(v, 2) for v in values]
    step = values[1] - values[0]
    decimals = next((d for d in range(8) if abs(round(step, d) - step) < step * 1e-6), None)
    return [f"{v:.1e}" if decimals is None else number(v, decimals) for v in values]


@dataclass(frozen=True)
class Axes:
    """A plot area of `width` x `height` user units; data ranges map onto the space inside its margins."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 46
    right: float = 12
    top: float = 10
    bottom: float = 36

    def x(self, value: float) -> float:
        """Horizontal place of a data value."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Vertical place of a data value."""
        low, high = self.y_range
        return (
            self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)
        )

    def frame(
        self,
        x_label: str = "",
        y_label: str = "",
        x_ticks: Sequence[tuple[float, str]] | None = None,
        y_ticks: Sequence[tuple[float, str]] | None = None,
        x_grid: bool = False,
    ) -> Markup:
        """Grid lines, tick labels and axis titles. Without ticks given, round numbers are chosen."""
        if x_ticks is None:
            places = ticks(*self.x_range, target=5)
            x_ticks = list(zip(places, tick_labels(places), strict=True))
        if y_ticks is None:
            places = ticks(*self.y_range)
            y_ticks = list(zip(places, tick_labels(places), strict=True))
        base, end = self.height - self.bottom, self.width - self.right
        parts: list[Markup] = []
        for value, label in y_ticks:
            at = self.y(value)
            parts.append(element("line", class_="grid", x1=self.left, x2=end, y1=at, y2=at))
            parts.append(
                element("text", label, class_="tick", x=self.left - 6, y=at + 3.5, text_anchor="end")
            )
        for value, label in x_ticks:
            at = self.x(value)
            if x_grid:
                parts.append(element("line", class_="grid", x1=at, x2=at, y1=self.top, y2=base))
            parts.append(element("text", label, class_="tick", x=at, y=base + 15, text_anchor="middle"))
        parts.append(element("line", class_="axis", x1=self.left, x2=end, y1=base, y2=base))
        if x_label:
            middle = (self.left + end) / 2
            parts.append(
                element(
                    "text", x_label, class_="axis-title", x=middle, y=self.height - 4, text_anchor="middle"
                )
            )
        if y_label:
            middle = (self.top + base) / 2
            parts.append(
                element(
                    "text",
                    y_label,
                    class_="axis-title",
                    text_anchor="middle",
                    transform=f"translate(11 {middle:.1f}) rotate(-90)",
                )
            )
        return join(*parts)

    def svg(self, *children: Markup, label: str) -> Markup:
        """The finished picture; `label` is what a screen reader says."""
        return element(
            "svg",
            *children,
            class_="chart",
            viewBox=f"0 0 {self.width:g} {self.height:g}",
            role="img",
            aria_label=label,
        )

    def polyline(self, x: Sequence[float], y: Sequence[float], class_: str) -> Markup:
        """A line through the points, broken where a value is not finite."""
        runs: list[list[str]] = [[]]
        for a, b in zip(x, y, strict=True):
            if math.isfinite(b):
                runs[-1].append(f"{self.x(a):.2f} {self.y(b):.2f}")
            elif runs[-1]:
                runs.append([])
        path = " ".join("M" + " L".join(run) for run in runs if run)
        return element("path", class_=f"line {class_}", d=path) if path else Markup()
