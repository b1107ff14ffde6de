"""Smooth functions of one entry, enclosed in float64: values, images of intervals, and lines below and above.

Assumption: numpy's float64 exp, tanh, sin, cos and arccos, arcsin and scipy's erf err by at most 4 units in the last place (of
1, for sin and cos); 16 are charged, and TINY for results that underflow. Arguments of sin and cos
beyond 2**20 are taken to give anything in [-1, 1].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import erf

from verifier.check.rounding import TINY, UNIT, above, below, gamma
from verifier.ops import Array, Cos, Erf, Exp, Op, Power, Reciprocal, Sigmoid, Sin, Sqrt, Tanh

Pair = tuple[Array, Array]

RELATIVE = 64 * UNIT
"""More than 16 units in the last place, as part of the number."""
FARTHEST = 2.0**20
TURN = 2 * np.pi
STEEPEST_ERF = 2 / np.sqrt(np.pi)
NEAR = 1e-9
"""Of a turn: far more than float64 errs by in counting turns up to FARTHEST."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A function, its derivative, and its shape on both sides of zero; it may bend the other way at zero only.

    value(x), derivative(x): enclosures, (least, greatest); place(s, side): where about the derivative is s, right (side 1) or
    left (side -1) of zero, anything where it is not; concave: left, right of zero.
    """

    value: Callable[[Array], Pair]
    derivative: Callable[[Array], Pair]
    place: Callable[[Array, int], Array]
    concave: tuple[bool, bool]


def image(op: Op, low: Array, high: Array) -> Pair:
    """Bounds of a curve's values over intervals."""
    with np.errstate(all="ignore"):
        match op:
            case Sin() | Cos():
                return _wave_image(op, low, high)
            case Reciprocal():
                known = (low > 0) | (high < 0)
                # sound: 1 / x falls on either side of 0 and is not defined at 0.
                return np.where(known, below(1.0 / high), -np.inf), np.where(known, above(1.0 / low), np.inf)
            case Sqrt():
                known = low >= 0
                # sound: the root rises; it is not defined below 0.
                return np.where(known, curve(op).value(low)[0], -np.inf), np.where(known, curve(op).value(high)[1], np.inf)
            case Power(exponent=exponent) if exponent % 2 == 0:
                nearest = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
                # sound: an even power rises with |x|.
                return curve(op).value(nearest)[0], curve(op).value(np.maximum(np.abs(low), np.abs(high)))[1]
            case _:
                # sound: the others rise.
                return curve(op).value(low)[0], curve(op).value(high)[1]


def tangent_slope(op: Op, x: Array) -> Array:
    """About the derivative at x."""
    with np.errstate(all="ignore"):
        match op:
            case Sin():
                return np.cos(x)
            case Cos():
                return -np.sin(x)
            case _:
                low, high = curve(op).derivative(x)
                return 0.5 * low + 0.5 * high


def values(op: Op, x: Array) -> Pair:
    """Enclosures of f(x)."""
    with np.errstate(all="ignore"):
        return _wave_value(op, x) if isinstance(op, Sin | Cos) else curve(op).value(x)


def offset_above(op: Op, slope: Array, low: Array, high: Array) -> Array:
    """At least f(x) - slope * x for every x in [low, high]."""
    with np.errstate(all="ignore"):
        if isinstance(op, Sin | Cos):
            return _wave_offset(op, slope, low, high, 1)
        return _offset(curve(op), slope, low, high, 1)


def offset_below(op: Op, slope: Array, low: Array, high: Array) -> Array:
    """At most f(x) - slope * x for every x in [low, high]."""
    with np.errstate(all="ignore"):
        if isinstance(op, Sin | Cos):
            return -_wave_offset(op, slope, low, high, -1)
        return -_offset(curve(op), slope, low, high, -1)


def _offset(shape: Curve, slope: Array, low: Array, high: Array, sign: int) -> Array:
    """At least sign * (f(x) - slope * x) over [low, high]."""
    if shape.concave[0] == shape.concave[1]:
        return _piece_offset(shape, slope, low, high, sign, 0)
    left = _piece_offset(shape, slope, low, np.minimum(high, 0.0), sign, -1)
    right = _piece_offset(shape, slope, np.maximum(low, 0.0), high, sign, 1)
    # sound: the function bends one way on each side of 0; a side that the interval does not reach counts for nothing.
    return np.maximum(np.where(low <= 0, left, -np.inf), np.where(high >= 0, right, -np.inf))


def _piece_offset(shape: Curve, slope: Array, low: Array, high: Array, sign: int, side: int) -> Array:
    """At least h(x) = sign * (f(x) - slope * x) on a piece where f bends one way; side: of zero, 0 for both."""
    is_concave = shape.concave[0 if side < 0 else 1] == (sign > 0)
    if not is_concave:
        # sound: h is convex, so it is largest at an end.
        return np.maximum(_height(shape.value(low), slope, low, sign), _height(shape.value(high), slope, high, sign))
    guess = np.where(slope >= 0, shape.place(slope, 1), shape.place(slope, -1)) if side == 0 else shape.place(slope, side)
    if not np.isfinite(guess).all():
        steepest = shape.derivative(low)
        climbs = steepest[1] > slope if sign > 0 else steepest[0] < slope
        guess = np.where(np.isfinite(guess), guess, np.where(climbs, high, low))
    x = np.clip(guess, low, high)
    least, most = shape.derivative(x)
    rise = above(most - slope) if sign > 0 else above(slope - least)
    fall = above(slope - least) if sign > 0 else above(most - slope)
    # sound: h is concave, so it stays below its tangent at any x: h(x) + h'(x) (y - x), with -fall <= h'(x) <= rise.
    ahead = np.where(rise > 0, above(rise * above(high - x)), 0.0)
    behind = np.where(fall > 0, above(fall * above(x - low)), 0.0)
    return above(_height(shape.value(x), slope, x, sign) + np.maximum(ahead, behind))


def _height(value: Pair, slope: Array, x: Array, sign: int) -> Array:
    """At least sign * (f(x) - slope * x), for an enclosure of f(x)."""
    return above(value[1] + above(-slope * x)) if sign > 0 else above(above(slope * x) - value[0])


def _near(result: Array, relative: float = RELATIVE) -> Pair:
    """An enclosure of a function computed with a small relative error; infinite where it overflowed."""
    error = np.abs(result) * relative + TINY
    low, high = result - error, result + error
    return np.where(np.isfinite(low), low, -np.inf), np.where(np.isfinite(high), high, np.inf)


def _within(pair: Pair, least: float, most: float) -> Pair:
    # sound: the function is known to stay there.
    return np.maximum(pair[0], least), np.minimum(pair[1], most)


def _absolute(result: Array) -> Pair:
    """An enclosure of numbers in [0, 1.2] made from such by a few operations, that err by units of 1."""
    return result - 4 * RELATIVE, result + 4 * RELATIVE


def _logistic(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def _sigmoid_slope(x: Array) -> Pair:
    y = _logistic(x)
    return _absolute(y * (1.0 - y))


def _tanh_slope(x: Array) -> Pair:
    y = np.tanh(x)
    return _absolute(1.0 - y * y)


def _sigmoid_place(slope: Array, side: int) -> Array:
    """y (1 - y) = slope for y = (1 +- r) / 2, r = sqrt(1 - 4 slope)."""
    s = np.clip(slope, 1e-300, 0.25)
    return side * np.log((1.0 + np.sqrt(1.0 - 4.0 * s)) ** 2 / (4.0 * s))


def _tanh_place(slope: Array, side: int) -> Array:
    """1 - y * y = slope."""
    s = np.clip(slope, 1e-300, 1.0)
    return side * np.log((1.0 + np.sqrt(1.0 - s)) / np.sqrt(s))


def _power(x: Array, exponent: int) -> Pair:
    """sound: each product errs by u, relatively; squares of squares, so at most as many errors as the exponent."""
    result, square, left = np.ones_like(x), x, exponent
    while left:
        if left & 1:
            result = result * square
        left >>= 1
        square = square * square if left else square
    return _near(result, gamma(exponent))


def _power_slope(x: Array, exponent: int) -> Pair:
    low, high = _power(x, exponent - 1)
    return below(exponent * low), above(exponent * high)


def _power_place(slope: Array, side: int, exponent: int) -> Array:
    size = np.abs(slope) if exponent % 2 == 0 else np.maximum(slope, 0.0)
    return side * (size / exponent) ** (1.0 / (exponent - 1))


def _root(x: Array) -> Pair:
    """sound: square roots are rounded correctly, and none is negative."""
    y = np.sqrt(x)
    return np.where(x >= 0, np.maximum(below(y), 0.0), -np.inf), np.where(x >= 0, above(y), np.inf)


def _root_place(slope: Array, side: int) -> Array:
    """1 / (2 sqrt(x)) = slope; a falling line is farthest below the root at the right end."""
    return np.where(slope > 0, 0.25 / (slope * slope), np.inf)


def _erf_slope(x: Array) -> Pair:
    return _absolute(STEEPEST_ERF * np.exp(-x * x))


def _erf_place(slope: Array, side: int) -> Array:
    """STEEPEST_ERF * exp(-x * x) = slope."""
    return side * np.sqrt(np.log(STEEPEST_ERF / np.clip(slope, 1e-300, STEEPEST_ERF)))


def _reciprocal(x: Array) -> Pair:
    return below(1.0 / x), above(1.0 / x)


def _reciprocal_slope(x: Array) -> Pair:
    return _near(-1.0 / (x * x))


CURVES: Mapping[type, Curve] = {
    Sigmoid: Curve(lambda x: _within(_near(_logistic(x)), 0.0, 1.0), _sigmoid_slope, _sigmoid_place, (False, True)),
    Tanh: Curve(lambda x: _within(_near(np.tanh(x)), -1.0, 1.0), _tanh_slope, _tanh_place, (False, True)),
    Exp: Curve(
        lambda x: _within(_near(np.exp(x)), 0.0, np.inf),
        lambda x: _near(np.exp(x)),
        lambda slope, side: np.log(slope),
        (False, False),
    ),
    Erf: Curve(lambda x: _within(_near(erf(x)), -1.0, 1.0), _erf_slope, _erf_place, (False, True)),
    Sqrt: Curve(_root, lambda x: _near(0.5 / np.sqrt(x)), _root_place, (True, True)),
    Reciprocal: Curve(_reciprocal, _reciprocal_slope, lambda slope, side: side / np.sqrt(-slope), (True, False)),
}


def curve(op: Op) -> Curve:
    """The curve of an operator, other than Sin and Cos."""
    if isinstance(op, Power):
        k = op.exponent
        return Curve(
            lambda x: _power(x, k), lambda x: _power_slope(x, k), lambda s, side: _power_place(s, side, k), (k % 2 == 1, False)
        )
    return CURVES[type(op)]


def _wave_value(op: Sin | Cos, x: Array) -> Pair:
    y = np.sin(x) if isinstance(op, Sin) else np.cos(x)
    # sound: the error is taken as part of 1, not of y, since vector loops lose the small results near the zeros.
    near = _within((y - RELATIVE, y + RELATIVE), -1.0, 1.0)
    far = ~(np.abs(x) <= FARTHEST)
    return np.where(far, -1.0, near[0]), np.where(far, 1.0, near[1])


def _turns(first: Array, low: Array, high: Array) -> Pair:
    """The least and the greatest whole k with first + k turns in [low, high], or a little outside."""
    return np.ceil((low - first) / TURN - NEAR), np.floor((high - first) / TURN + NEAR)


def _wave_image(op: Sin | Cos, low: Array, high: Array) -> Pair:
    at_low, at_high = _wave_value(op, low), _wave_value(op, high)
    top = np.pi / 2 if isinstance(op, Sin) else 0.0
    far = ~((np.abs(low) <= FARTHEST) & (np.abs(high) <= FARTHEST))
    # sound: a wave rises and falls between its extremes; where one may lie in the interval, it counts.
    peaks, dips = _turns(np.array(top), low, high), _turns(np.array(top + np.pi), low, high)
    least = np.where(far | (dips[0] <= dips[1]), -1.0, np.minimum(at_low[0], at_high[0]))
    return least, np.where(far | (peaks[0] <= peaks[1]), 1.0, np.maximum(at_low[1], at_high[1]))


def _wave_offset(op: Sin | Cos, slope: Array, low: Array, high: Array, sign: int) -> Array:
    """At least h(x) = sign * (f(x) - slope * x) over [low, high].

    sound: h is largest at an end or where f' is the slope and h bends down, a place x0 + k turns; h falls or rises by the same
    with each turn, so the first and the last place count. A place is known to 1e-12 of its size (lemma: arccos and arcsin of a
    float err by 4 units), where h, flat there and bending by at most 1, differs from its peak by far less than `lost`.
    """
    result = np.maximum(_height(_wave_value(op, low), slope, low, sign), _height(_wave_value(op, high), slope, high, sign))
    s = np.clip(slope, -1.0, 1.0)
    of_cos = -np.arcsin(s) if sign > 0 else np.pi + np.arcsin(s)
    first = sign * np.arccos(s) if isinstance(op, Sin) else of_cos
    for turns in (rounded := _turns(first, low, high)):
        x = first + turns * TURN
        lost = (1e-12 * (1.0 + np.abs(x))) ** 2
        peak = above(_height(_wave_value(op, x), slope, x, sign) + lost)
        inside = (np.abs(slope) <= 1.0) & (rounded[0] <= rounded[1])
        result = np.where(inside, np.maximum(result, peak), result)
    far = ~((np.abs(low) <= FARTHEST) & (np.abs(high) <= FARTHEST))
    widest = above(above(np.abs(slope) * np.maximum(np.abs(low), np.abs(high))) + 1.0)
    # sound: |f| <= 1.
    return np.where(far, widest, result)
