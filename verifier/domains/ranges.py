"""The exact range of each curve, step and product over intervals, rounded outward.

Assumption: torch's exp, cosh, sigmoid, tanh, erf, sin and cos of a float64 are within 4 ulp of the exact value, or within
1e-300 of it; twice that is allowed for. Sines of large arguments, the hardest part of a library, are not asked for.
"""

from collections.abc import Callable
from math import pi
from sys import float_info
from typing import Any, TypeAlias

import torch
from torch import Tensor

from verifier.domains.rounding import TINY, UNIT, above, below
from verifier.evaluate import FORWARD
from verifier.ops import Cos, Erf, Exp, Floor, Power, Product, Reciprocal, Sigmoid, Sign, Sin, Sqrt, Tanh

# Lower and upper, each of shape (batch, *value shape).
Interval: TypeAlias = tuple[Tensor, Tensor]

LIBM = 16 * UNIT
FAR = 1e5
"""Beyond this only -1 <= sin <= 1 is used."""

LIMITS: dict[type, tuple[float, float]] = {Sigmoid: (0.0, 1.0), Tanh: (-1.0, 1.0), Erf: (-1.0, 1.0), Exp: (0.0, torch.inf)}
PEAK: dict[type, float] = {Sin: 0.5 * pi, Cos: 0.0}


def lowered(value: Tensor, error: float, absolute: float = TINY) -> Tensor:
    """A lower bound on a number whose computed value may be off by this relative and absolute error, or have overflowed."""
    value = value.clamp(max=float_info.max)
    return value - (error * value.abs() + absolute)


def raised(value: Tensor, error: float, absolute: float = TINY) -> Tensor:
    """An upper bound, as `lowered`."""
    return -lowered(-value, error, absolute)


def increasing(op: Sigmoid | Tanh | Erf | Exp, inputs: list[Interval]) -> Interval:
    """The curve at both ends."""
    lower, upper = inputs[0]
    curve = FORWARD[type(op)]
    # sound: increasing, so the ends give the range, which never leaves the limits of the curve
    low, high = lowered(curve(op, [lower]), LIBM), raised(curve(op, [upper]), LIBM)
    return low.clamp(*LIMITS[type(op)]), high.clamp(*LIMITS[type(op)])


def wave(op: Sin | Cos, inputs: list[Interval]) -> Interval:
    """The values at the ends, and 1 or -1 where a peak or a trough lies between them."""
    lower, upper = inputs[0]
    far = torch.maximum(lower.abs(), upper.abs()) > FAR
    a, b = lower.clamp(-FAR, FAR), upper.clamp(-FAR, FAR)
    ends = FORWARD[type(op)](op, [a]), FORWARD[type(op)](op, [b])
    # sound: without a trough inside, the least value is at an end; without a peak the greatest is
    low = lowered(torch.minimum(*ends), LIBM, LIBM).masked_fill(far | _passes(a, b, PEAK[type(op)] + pi), -1.0)
    high = raised(torch.maximum(*ends), LIBM, LIBM).masked_fill(far | _passes(a, b, PEAK[type(op)]), 1.0)
    return low.clamp(-1.0, 1.0), high.clamp(-1.0, 1.0)


def _passes(lower: Tensor, upper: Tensor, place: float) -> Tensor:
    """Whether place + 2 pi k may lie in the interval for some whole k."""
    # sound: for arguments up to FAR a quotient is off by less than 1e-11, far below the margin
    margin = 1e-9
    return ((lower - place) / (2 * pi) - margin).ceil() <= ((upper - place) / (2 * pi) + margin).floor()


def reciprocal(op: Reciprocal, inputs: list[Interval]) -> Interval:
    """1 / x at the ends; nothing is known where the interval holds 0."""
    lower, upper = inputs[0]
    holds_zero = (lower <= 0) & (upper >= 0)
    # sound: decreasing on either side of 0, and division is rounded correctly
    low, high = below(upper.reciprocal()), above(lower.reciprocal())
    return low.masked_fill(holds_zero, -torch.inf), high.masked_fill(holds_zero, torch.inf)


def root(op: Sqrt, inputs: list[Interval]) -> Interval:
    """The square root at both ends; nothing is known where the interval reaches below 0."""
    lower, upper = inputs[0]
    undefined = lower < 0
    # sound: increasing, and square roots are rounded correctly
    low, high = below(lower.clamp(min=0.0).sqrt()).clamp(min=0.0), above(upper.clamp(min=0.0).sqrt())
    return low.masked_fill(undefined, -torch.inf), high.masked_fill(undefined, torch.inf)


def power(op: Power, inputs: list[Interval]) -> Interval:
    """x ** n at the ends, and 0 where an even power turns inside."""
    lower, upper = inputs[0]
    first, last = FORWARD[Power](op, [lower]), FORWARD[Power](op, [upper])
    error = LIBM + 2 * op.exponent * UNIT
    if op.exponent % 2:
        # sound: odd powers are increasing
        return lowered(first, error), raised(last, error)
    turns = (lower <= 0) & (upper >= 0)
    # sound: an even power falls up to 0 and rises from there, and is never negative
    low = lowered(torch.minimum(first, last), error).clamp(min=0.0).masked_fill(turns, 0.0)
    return low, raised(torch.maximum(first, last), error)


def step(op: Sign | Floor, inputs: list[Interval]) -> Interval:
    """The step at both ends."""
    lower, upper = inputs[0]
    # sound: increasing and computed without rounding
    return FORWARD[type(op)](op, [lower]), FORWARD[type(op)](op, [upper])


def multiplied(op: Product, inputs: list[Interval]) -> Interval:
    """The least and the greatest product of two ends."""
    (a, b), (c, d) = inputs
    # sound: a product of two numbers is linear in each, so extreme at the ends; 0 times a number however large is 0
    ends = torch.stack([a * c, a * d, b * c, b * d]).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    return below(ends.amin(0)), above(ends.amax(0))


RANGES: dict[type, Callable[[Any, list[Interval]], Interval]] = {
    Sigmoid: increasing,
    Tanh: increasing,
    Erf: increasing,
    Exp: increasing,
    Sin: wave,
    Cos: wave,
    Reciprocal: reciprocal,
    Sqrt: root,
    Power: power,
    Sign: step,
    Floor: step,
    Product: multiplied,
}
