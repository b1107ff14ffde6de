"""Smooth functions of one entry between two lines: every slope is allowed, the intercept follows from it.

The line slope * z + c lies below f on [low, high] exactly when c <= min of f(z) - slope * z, which is attained at an end or
where f'(z) = slope; for each operator those places have a closed form, so intercepts are exact up to rounding, for whole
tensors at once. As a function of the slope the intercept is concave (a minimum of linear functions), its gradient is minus the
place where the minimum is attained, and a climb on slopes finds the best tangent.

Tangents with a free place: Shi et al., arXiv:2405.21063 (GenBaB).
"""

from collections.abc import Callable
from math import pi
from typing import Any

import torch
from torch import Tensor

from verifier.ops import Cos, Erf, Exp, Power, Reciprocal, Sigmoid, Sin, Sqrt, Tanh

STEEPEST_ERF = 2 / pi**0.5
"""The derivative of erf at 0, where it is greatest."""

FAR = 1e5
"""Beyond this, float64 loses too much of a sine's phase: only -1 <= sin <= 1 is used."""

VALUE: dict[type, Callable[[Any, Tensor], Tensor]] = {
    Sigmoid: lambda op, z: z.sigmoid(),
    Tanh: lambda op, z: z.tanh(),
    Sin: lambda op, z: z.sin(),
    Cos: lambda op, z: z.cos(),
    Exp: lambda op, z: z.exp(),
    Reciprocal: lambda op, z: z.reciprocal(),
    Sqrt: lambda op, z: z.sqrt(),
    Erf: lambda op, z: z.erf(),
    Power: lambda op, z: z**op.exponent,
}

DERIVATIVE: dict[type, Callable[[Any, Tensor], Tensor]] = {
    Sigmoid: lambda op, z: z.sigmoid() * (-z).sigmoid(),
    Tanh: lambda op, z: z.cosh().reciprocal() ** 2,
    Sin: lambda op, z: z.cos(),
    Cos: lambda op, z: -z.sin(),
    Exp: lambda op, z: z.exp(),
    Reciprocal: lambda op, z: -(z.reciprocal() ** 2),
    Sqrt: lambda op, z: 0.5 / z.sqrt(),
    Erf: lambda op, z: STEEPEST_ERF * (-z * z).exp(),
    Power: lambda op, z: op.exponent * z ** (op.exponent - 1),
}


def curve_value(op: Any, z: Tensor) -> Tensor:
    """f(z), entry by entry."""
    return VALUE[type(op)](op, z)


def _nearest_turns(first: Tensor, low: Tensor, high: Tensor) -> list[Tensor]:
    """Of the places first + 2 pi k, the least that is >= low and the greatest that is <= high."""
    turn = 2 * torch.pi
    return [first + turn * ((low - first) / turn).ceil(), first + turn * ((high - first) / turn).floor()]


def _sigmoid_stationary(op: Sigmoid, slope: Tensor, low: Tensor, high: Tensor, lowest: bool) -> list[Tensor]:
    # f' = s(1 - s) = slope at s = (1 +- root) / 2, so z = 2 atanh(root), written for slopes near 0; f is convex for z < 0
    root = (1 - 4 * slope).clamp(0, 1).sqrt()
    place = 2 * root.log1p() - (4 * slope).clamp(0, 1).log()
    return [-place if lowest else place]


def _tanh_stationary(op: Tanh, slope: Tensor, low: Tensor, high: Tensor, lowest: bool) -> list[Tensor]:
    root = (1 - slope).clamp(0, 1).sqrt()  # f' = 1 - tanh**2 = slope, so z = atanh(root), written for slopes near 0
    place = root.log1p() - 0.5 * slope.clamp(0, 1).log()
    return [-place if lowest else place]


def _sin_stationary(op: Sin, slope: Tensor, low: Tensor, high: Tensor, lowest: bool) -> list[Tensor]:
    # sound: of the places where cos z = slope and sin z < 0 (> 0), slope * z is extreme at the first or the last
    place = slope.clamp(-1, 1).acos()
    return _nearest_turns(-place if lowest else place, low, high)


def _cos_stationary(op: Cos, slope: Tensor, low: Tensor, high: Tensor, lowest: bool) -> list[Tensor]:
    place = slope.clamp(-1, 1).asin()  # -sin z = slope at -place, where cos > 0, and at pi + place, where cos < 0
    return _nearest_turns(torch.pi + place if lowest else -place, low, high)


def _exp_stationary(op: Exp, slope: Tensor, low: Tensor, high: Tensor, lowest: bool) -> list[Tensor]:
    return [slope.clamp(min=1e-300).log()] if lowest else []  # convex


def _reciprocal_stationary(op: Reciprocal, slope: Tensor, low: Tensor, high: Tensor, lowest: bool) -> list[Tensor]:
    place = (-slope).clamp(min=1e-300).rsqrt()  # convex for z > 0, concave for z < 0
    return [place if lowest else -place]


def _sqrt_stationary(op: Sqrt, slope: Tensor, low: Tensor, high: Tensor, lowest: bool) -> list[Tensor]:
    return [] if lowest else [torch.where(slope > 0, 0.25 / slope**2, torch.inf)]  # concave


def _erf_stationary(op: Erf, slope: Tensor, low: Tensor, high: Tensor, lowest: bool) -> list[Tensor]:
    # f' = STEEPEST_ERF * exp(-z**2) = slope; f is convex for z < 0
    place = (STEEPEST_ERF / slope.clamp(1e-300, STEEPEST_ERF)).log().sqrt()
    return [-place if lowest else place]


def _power_stationary(op: Power, slope: Tensor, low: Tensor, high: Tensor, lowest: bool) -> list[Tensor]:
    root = (slope.abs() / op.exponent) ** (1 / (op.exponent - 1))
    if op.exponent % 2 == 0:
        return [slope.sign() * root] if lowest else []  # convex
    return [root if lowest else -root]  # convex for z > 0, concave for z < 0


STATIONARY: dict[type, Callable[[Any, Tensor, Tensor, Tensor, bool], list[Tensor]]] = {
    Sigmoid: _sigmoid_stationary,
    Tanh: _tanh_stationary,
    Sin: _sin_stationary,
    Cos: _cos_stationary,
    Exp: _exp_stationary,
    Reciprocal: _reciprocal_stationary,
    Sqrt: _sqrt_stationary,
    Erf: _erf_stationary,
    Power: _power_stationary,
}
"""The places where f(z) - slope * z may be locally lowest (or highest) inside the bounds, near enough to either end."""


def intercept(op: Any, slope: Tensor, low: Tensor, high: Tensor, *, lowest: bool) -> Tensor:
    """The largest c with slope * z + c <= f(z) on [low, high] (lowest), or the smallest with >=; differentiable in slope.

    All shapes broadcast. -inf (inf) where there is none, such as for 1/z across 0; never NaN.
    """
    if isinstance(op, Sigmoid | Tanh) and bool(low.isfinite().all() & high.isfinite().all() & slope.isfinite().all()):
        return _bounded_intercept(op, slope, low, high, lowest)
    sign = 1.0 if lowest else -1.0
    with torch.no_grad():
        places, heights = [low, high], [curve_value(op, low), curve_value(op, high)]
        for place in STATIONARY[type(op)](op, slope, low, high, lowest):
            # sound: any place within the bounds may join the minimum; NaN is none
            inside = torch.where(place.isnan(), low, place.clamp(low, high))
            places.append(inside)
            heights.append(curve_value(op, inside))
        if isinstance(op, Sin | Cos):
            far = ~(torch.maximum(low.abs(), high.abs()) <= FAR)
            heights = [torch.where(far, -sign, height) for height in heights]
        if isinstance(op, Reciprocal):
            heights = [torch.where((low <= 0) & (high >= 0), -sign * torch.inf, height) for height in heights]
        if isinstance(op, Sqrt):
            heights = [torch.where(low < 0, -sign * torch.inf, height) for height in heights]
        best = torch.full_like(slope + low, torch.inf)
        at, top = torch.zeros_like(best), sign * best
        for place, height in zip(places, heights, strict=True):
            gap = sign * (height - torch.where(slope == 0, 0.0, slope * place))
            # sound: what is not defined counts as unbounded, and what overflows is beyond the largest float
            gap = torch.nan_to_num(gap, nan=-torch.inf, neginf=-torch.inf)
            lower = gap < best
            best, at, top = torch.where(lower, gap, best), torch.where(lower, place, at), torch.where(lower, height, top)
        finite = best.isfinite() & at.isfinite() & top.isfinite()
        at, top = at.masked_fill(~finite, 0.0), torch.where(finite, top, sign * best)
        largest = torch.finfo(top.dtype).max
    shift = top - slope * at
    return shift.clamp(max=largest) if lowest else shift.clamp(min=-largest)


def _bounded_intercept(op: Sigmoid | Tanh, slope: Tensor, low: Tensor, high: Tensor, lowest: bool) -> Tensor:
    """`intercept` where nothing can be undefined or overflow, with a third of its operations."""
    with torch.no_grad():
        (place,) = STATIONARY[type(op)](op, slope, low, high, lowest)
        place = place.clamp(low, high)
        gaps = [curve_value(op, z) - slope * z for z in (low, high, place)]
        first, middle = (gaps[0] <= gaps[1], gaps[2]) if lowest else (gaps[0] >= gaps[1], gaps[2])
        ends = torch.where(first, gaps[0], gaps[1])
        at = torch.where((middle < ends) if lowest else (middle > ends), place, torch.where(first, low, high))
        top, largest = curve_value(op, at), torch.finfo(at.dtype).max
    shift = top - slope * at
    return shift.clamp(max=largest) if lowest else shift.clamp(min=-largest)


def slope_range(op: Any, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest derivative on [low, high]: the best slope lies between; (0, 0) where they are not finite."""
    ends = [DERIVATIVE[type(op)](op, z) for z in (low, high, *(bend.clamp(low, high) for bend in bends(op, low)))]
    least, greatest = torch.stack(ends).amin(0), torch.stack(ends).amax(0)
    known = low.isfinite() & high.isfinite() & least.isfinite() & greatest.isfinite()
    if isinstance(op, Reciprocal):
        known &= (low > 0) | (high < 0)
    return torch.where(known, least, 0.0), torch.where(known, greatest, 0.0)


def bends(op: Any, low: Tensor) -> list[Tensor]:
    """The places where f'' changes its sign, for periodic functions the first two at or above low."""
    match op:
        case Sigmoid() | Tanh() | Erf():
            return [torch.zeros_like(low)]
        case Power(exponent=exponent):
            return [torch.zeros_like(low)] if exponent % 2 else []
        case Sin() | Cos():
            shift = 0.5 * torch.pi if isinstance(op, Cos) else 0.0
            first = ((low - shift) / torch.pi).ceil() * torch.pi + shift
            return [first, first + torch.pi]
        case _:
            return []


def default_slope(op: Any, low: Tensor, high: Tensor, *, lowest: bool) -> Tensor:
    """The slope of the chord, or of the tangent in the middle where that line is closer to f there; 0 where undefined."""
    least, greatest = slope_range(op, low, high)
    middle = 0.5 * low + 0.5 * high
    width = high - low
    rise = curve_value(op, high) - curve_value(op, low)
    tangent = DERIVATIVE[type(op)](op, middle)
    chord = torch.where(width > 0, rise / width, tangent)
    chord, tangent = (torch.nan_to_num(s, nan=0.0).clamp(least, greatest) for s in (chord, tangent))
    sign = 1.0 if lowest else -1.0
    # sound: any slope is
    reach = [sign * (s * middle + intercept(op, s, low, high, lowest=lowest)) for s in (chord, tangent)]
    return torch.where(reach[1] > reach[0], tangent, chord)
