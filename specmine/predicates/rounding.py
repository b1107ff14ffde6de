"""Short decimals on the safe side of a number."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from math import isfinite

from verifier.ops import Array

DIGITS = 4
_DOWN = Context(prec=DIGITS, rounding=ROUND_FLOOR)
_UP = Context(prec=DIGITS, rounding=ROUND_CEILING)


def shorten(value: float, *, down: bool) -> float:
    """The float64 nearest to the next decimal of four significant digits, never above value if down, else never below.

    >>> shorten(1.23456, down=True), shorten(1.23456, down=False)
    (1.234, 1.235)
    """
    # sound: the float nearest to a decimal on one side of a float is not on its other side
    short = float((_DOWN if down else _UP).plus(Decimal(value)))
    return short + 0.0


def short_thresholds(values: Array, *, down: bool) -> list[float]:
    """The distinct finite short decimals on the safe side of values (any,), in order."""
    short = {shorten(value, down=down) for value in values.tolist()}
    return sorted(threshold for threshold in short if isfinite(threshold))
