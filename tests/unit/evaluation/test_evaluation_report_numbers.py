import math

import pytest

from vggrpo.evaluation import Interval
from vggrpo.evaluation.report.axes import Axes, tick_labels, ticks, value_range
from vggrpo.evaluation.report.charts import running_average
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.numbers import bounds, duration, milliseconds, number, signed, significant


@pytest.mark.parametrize(
    ("value", "decimals", "plain", "with_sign"),
    [
        (0.12345, 3, "0.123", "+0.123"),
        (-0.0449, 2, "\u22120.04", "\u22120.04"),
        (-0.0004, 3, "0.000", "0.000"),
        (0.0, 2, "0.00", "0.00"),
        (1234.5, 0, "1,234", "+1,234"),
        (math.nan, 2, "n/a", "n/a"),
    ],
)
def test_numbers_have_fixed_decimals_and_a_true_minus(
    value: float, decimals: int, plain: str, with_sign: str
) -> None:
    assert number(value, decimals) == plain
    assert signed(value, decimals) == with_sign


def test_bounds_are_signed_or_said_to_be_missing() -> None:
    assert bounds(Interval(0.05, -0.01, 0.11, 9), 2) == "[\u22120.01, +0.11]"
    assert bounds(Interval(0.05, math.nan, math.nan, 1), 2) == "no interval"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04267, "0.0427"),
        (4.267, "4.27"),
        (42670.0, "42,670"),
        (4.2e-7, "4.20e\u22127"),
        (0.0, "0"),
        (-3.0, "\u22123.00"),
    ],
)
def test_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.21, "3.2 s"),
        (38.4, "38 s"),
        (59.6, "1 min"),
        (725, "12 min 5 s"),
        (12_000, "3 h 20 min"),
        (7200, "2 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_short_times() -> None:
    assert milliseconds(0.0431) == "43.1 ms"
    assert milliseconds(4.312) == "4.31 s"


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-3.2, 17.0), (0.6631, 0.6689), (1e-5, 4e-4), (2000, 91_000)])
def test_ticks_are_round_evenly_spaced_and_inside(ends: tuple[float, float]) -> None:
    places = ticks(*ends)
    assert 2 <= len(places) <= 8
    assert all(ends[0] - 1e-9 <= place <= ends[1] + 1e-9 for place in places)
    labels = tick_labels(places)
    assert len(set(labels)) == len(labels)
    for place, label in zip(places, labels, strict=True):
        assert float(label.replace("\u2212", "-").replace(",", "")) == pytest.approx(place, abs=1e-12)


def test_ranges_hold_their_values_and_do_not_cross_zero_for_nothing() -> None:
    low, high = value_range([2.0, math.nan, 4.0])
    assert low < 2 < 4 < high
    assert value_range([0.01, 1.0])[0] == 0
    assert value_range([0.0, 0.0]) == (0, 1)
    assert value_range([-5.0]) == (-5.5, -4.5)
    with pytest.raises(ValueError, match="no finite value"):
        value_range([math.nan])


def test_axes_put_data_at_their_place_with_up_as_more() -> None:
    axes = Axes(100, 100, (0, 10), (0, 1), left=20, right=10, top=10, bottom=30)
    assert (axes.x(0), axes.x(10)) == (20, 90)
    assert (axes.y(0), axes.y(1)) == (70, 10)


def test_lines_break_where_a_value_is_missing() -> None:
    axes = Axes(100, 100, (0, 3), (0, 1))
    line = axes.polyline([0, 1, 2, 3], [0.1, math.nan, 0.2, 0.3], "series-0")
    assert line.count("M") == 2
    assert axes.polyline([0], [math.nan], "series-0") == ""


def test_running_average_starts_without_bias_and_skips_gaps() -> None:
    assert running_average([2.0, 2.0, 2.0]) == pytest.approx([2.0] * 3)
    average = running_average([1.0, math.nan, 0.0], keep=0.5)
    assert average == pytest.approx([1.0, 1.0, 1 / 3])


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = element("b", "1 < 2")
    assert element("p", inner, " & ", None, class_="x", hidden=True, title='"', data_key=None) == Markup(
        '<p class="x" hidden title="&quot;"><b>1 &lt; 2</b> &amp; </p>'
    )
    assert element("br") == "<br>"
    assert join("<", element("i"), separator=" ") == "&lt; <i></i>"
