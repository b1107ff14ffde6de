"""Curves and steps between two parallel lines, rounded outward: what an affine form needs to pass a nonlinear function.

For any slope, f(x) - slope * x is bounded on each stretch where f is convex or concave: on one side by its ends, on the other
by a tangent at any place at all, best at the one where the slopes agree. So neither the slope nor that place need be exact.
"""

from collections.abc import Iterator
from math import pi
from typing import TypeAlias

import torch
from torch import Tensor

from verifier.domains.curves import DERIVATIVE, STATIONARY, curve_value
from verifier.domains.ranges import FAR, RANGES, Interval
from verifier.domains.rounding import TINY, UNIT, center_radius
from verifier.ops import Cos, Erf, Exp, Floor, Power, Reciprocal, Sigmoid, Sign, Sin, Sqrt, Tanh

# Slope, middle and half: f(x) lies within half of slope * x + middle, for every x between the bounds.
Parallelogram: TypeAlias = tuple[Tensor, Tensor, Tensor]
Curve: TypeAlias = Sigmoid | Tanh | Sin | Cos | Exp | Reciprocal | Sqrt | Erf | Power

ERROR = 256 * UNIT
"""Relative to the sizes that enter a bound: twice the error of a curve and its derivative, and a dozen roundings."""

WIDEST = 3.0
"""The widest stretch of a sine, less than half a turn, that is followed by a slope."""


def parallelogram(op: Curve | Sign | Floor, lower: Tensor, upper: Tensor) -> Parallelogram:
    """The thinnest of a few parallelograms around the graph of op; half is inf where nothing bounds it."""
    best = _level(*RANGES[type(op)](op, [(lower, upper)]))
    if isinstance(op, Sign):
        return best
    if isinstance(op, Floor):
        # sound: x - 1 < floor(x) <= x
        return _thinner(best, (torch.ones_like(lower), torch.full_like(lower, -0.5), torch.full_like(lower, 0.5)))
    for slope in _slopes(op, lower, upper):
        low, high = residual(op, slope, lower, upper)
        middle, half = center_radius(low, high)
        best = _thinner(best, (slope, middle, half))
    return best


def _level(low: Tensor, high: Tensor) -> Parallelogram:
    middle, half = center_radius(low, high)
    bounded = low.isfinite() & high.isfinite()
    return torch.zeros_like(low), torch.where(bounded, middle, 0.0), torch.where(bounded, half, torch.inf)


def _thinner(first: Parallelogram, second: Parallelogram) -> Parallelogram:
    better = second[2] < first[2]  # never where the second is NaN
    slope, middle, half = (torch.where(better, b, a) for a, b in zip(first, second, strict=True))
    return slope, middle, half


def _slopes(op: Curve, lower: Tensor, upper: Tensor) -> Iterator[Tensor]:
    """The chord's slope, best where f bends one way, and the lesser of those at the ends, best where it bends both ways."""
    f, derivative = curve_value, DERIVATIVE[type(op)]
    ends = derivative(op, lower), derivative(op, upper)
    flattest = torch.where(ends[0].abs() < ends[1].abs(), *ends)
    chord = (f(op, upper) - f(op, lower)) / (upper - lower)
    for slope in (chord, flattest):
        yield torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)


def residual(op: Curve, slope: Tensor, lower: Tensor, upper: Tensor) -> Interval:
    """Bounds on f(x) - slope * x over lower <= x <= upper; NaN or infinite where there are none."""
    bend = _bend(op, lower, upper)
    left, right = _stretch(op, slope, lower, bend), _stretch(op, slope, bend, upper)
    low, high = torch.minimum(left[0], right[0]), torch.maximum(left[1], right[1])
    unknown = ~(lower.isfinite() & upper.isfinite())
    if isinstance(op, Sin | Cos):
        unknown |= (upper - lower > WIDEST) | (torch.maximum(lower.abs(), upper.abs()) > FAR)
    if isinstance(op, Reciprocal):
        unknown |= (lower <= 0) & (upper >= 0)
    if isinstance(op, Sqrt):
        unknown |= lower < 0
    return low.masked_fill(unknown, -torch.inf), high.masked_fill(unknown, torch.inf)


def _bend(op: Curve, lower: Tensor, upper: Tensor) -> Tensor:
    """The place between the bounds where f'' changes its sign; the upper bound where it does not."""
    match op:
        case Sigmoid() | Tanh() | Erf():
            return torch.zeros_like(lower).clamp(lower, upper)
        case Power(exponent=exponent) if exponent % 2:
            return torch.zeros_like(lower).clamp(lower, upper)
        case Sin() | Cos():
            # sound: off by less than 1e-10, where f'' is as small, so that f strays from convex by less than 1e-19
            shift = 0.5 * pi if isinstance(op, Cos) else 0.0
            return ((((lower - shift) / pi).ceil() * pi + shift).clamp(lower, upper)).nan_to_num(nan=0.0)
        case _:
            return upper


def _convex(op: Curve, lower: Tensor, upper: Tensor) -> Tensor:
    """Whether f is convex on a stretch without a bend; else it is concave."""
    middle = 0.5 * lower + 0.5 * upper
    match op:
        case Sigmoid() | Tanh() | Erf():
            return middle <= 0
        case Sqrt():
            return torch.zeros_like(middle, dtype=torch.bool)
        case Sin() | Cos():
            return curve_value(op, middle) <= 0  # f'' = -f
        case Exp():
            return torch.ones_like(middle, dtype=torch.bool)
        case Power(exponent=exponent) if exponent % 2 == 0:
            return torch.ones_like(middle, dtype=torch.bool)
        case Reciprocal() | Power():
            return middle >= 0


def _stretch(op: Curve, slope: Tensor, a: Tensor, b: Tensor) -> Interval:
    """Bounds on f(x) - slope * x over a stretch a <= x <= b where f is convex or concave."""
    convex = _convex(op, a, b)
    heights = [curve_value(op, x) - slope * x for x in (a, b)]
    reach = torch.maximum(a.abs(), b.abs())
    size = torch.maximum(*(curve_value(op, x).abs() for x in (a, b))) + slope.abs() * reach
    if isinstance(op, Sin | Cos):
        size = 1.0 + slope.abs() * reach
    # sound: a convex function lies below its chord and above each of its tangents, a concave one the other way round
    lowest, highest = torch.full_like(a, -torch.inf), torch.full_like(a, torch.inf)
    for place in (*STATIONARY[type(op)](op, slope, a, b, True), *STATIONARY[type(op)](op, slope, a, b, False)):
        t = torch.where(place.isnan(), a, place).clamp(a, b)
        height, tilt = curve_value(op, t) - slope * t, DERIVATIVE[type(op)](op, t) - slope
        ends = tilt * (a - t), tilt * (b - t)
        error = ERROR * (size + (1.0 + tilt.abs() + slope.abs()) * (b - a)) + TINY
        lowest = torch.fmax(lowest, height + torch.minimum(*ends) - error)
        highest = torch.fmin(highest, height + torch.maximum(*ends) + error)
    error = ERROR * size + TINY
    low = torch.where(convex, lowest, torch.minimum(*heights) - error)
    return low, torch.where(convex, torch.maximum(*heights) + error, highest)
