"""Numbers as text, the same way everywhere in the report."""

import math

from vggrpo.evaluation.intervals import Interval

MINUS = "\u2212"
MISSING = "n/a"


def number(value: float, decimals: int = 3) -> str:
    """Fixed decimals, a true minus sign, thousands apart, NaN as "n/a"; never a negative zero."""
    if math.isnan(value):
        return MISSING
    text = f"{abs(value):,.{decimals}f}"
    is_zero = not text.strip("0.,")
    return f"{MINUS}{text}" if value < 0 and not is_zero else text


def signed(value: float, decimals: int = 3) -> str:
    """As `number`, with a plus sign where positive."""
    text = number(value, decimals)
    is_plain = text == MISSING or text.startswith(MINUS) or not text.strip("0.,")
    return text if is_plain else f"+{text}"


def bounds(interval: Interval, decimals: int = 3) -> str:
    """The interval's two ends, signed: "[+0.01, +0.08]"; "no interval" where there is none."""
    if math.isnan(interval.low):
        return "no interval"
    return f"[{signed(interval.low, decimals)}, {signed(interval.high, decimals)}]"


def significant(value: float, digits: int = 3) -> str:
    """A quantity of unknown size with `digits` significant digits, without exponent where it stays short."""
    if math.isnan(value):
        return MISSING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if -4 <= magnitude < 6:
        return number(value, max(0, digits - 1 - magnitude))
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """Wall-clock time: "38 s", "12 min 5 s", "3 h 20 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def milliseconds(seconds: float) -> str:
    """A short time: "43 ms", "4.31 s"."""
    return f"{significant(seconds * 1000)} ms" if seconds < 1 else f"{significant(seconds)} s"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """ "1 prompt", "24 prompts"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
