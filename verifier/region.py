"""Input regions: closed boxes with float64 or rational bounds, possibly cut by linear constraints.

Entries are in the C order of the network's input.

`exact_bounds` is what a claim speaks about; `outer_bounds` and `inner_bounds` are float64 boxes just around and just inside
it, for bound propagation and for attacks.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from sys import float_info
from typing import TypeAlias

import numpy as np

from verifier.errors import BadRegion
from verifier.formula import Atom
from verifier.ops import Array, frozen_array


@dataclass(frozen=True, eq=False)
class Box:
    """lower <= x <= upper, flat arrays of one length.

    >>> Box([0.0, 0.0], [1.0, 2.0]).size
    2
    """

    lower: Array
    upper: Array

    def __post_init__(self) -> None:
        lower, upper = frozen_array(self.lower).reshape(-1), frozen_array(self.upper).reshape(-1)
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)
        if lower.shape != upper.shape or not lower.size:
            raise BadRegion(f"lower and upper must have one positive length, got {lower.size} and {upper.size}")
        if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
            raise BadRegion("box bounds must be finite; give every input a lower and an upper bound")
        if (lower > upper).any():
            i = int(np.argmax(lower > upper))
            raise BadRegion(f"box is empty: lower {lower[i]} > upper {upper[i]} at input {i}; swap or widen them")

    @property
    def size(self) -> int:
        return self.lower.size


@dataclass(frozen=True, eq=False)
class Ball:
    """The closed L-infinity ball of a radius around a center, clipped to a domain box; bounds are exact rationals."""

    center: Array
    radius: float
    domain: Box

    def __post_init__(self) -> None:
        center = frozen_array(self.center).reshape(-1)
        object.__setattr__(self, "center", center)
        if not (np.isfinite(self.radius) and self.radius >= 0):
            raise BadRegion(f"radius must be a finite number >= 0, got {self.radius}; for a single point use radius 0")
        if center.size != self.domain.size:
            raise BadRegion(f"center has {center.size} entries but the domain has {self.domain.size}")
        if not np.isfinite(center).all():
            raise BadRegion("center must be finite")
        lowest, highest = directed_sum(center, -self.radius, np.inf), directed_sum(center, self.radius, -np.inf)
        if (lowest > self.domain.upper).any() or (highest < self.domain.lower).any():
            raise BadRegion(f"the ball of radius {self.radius} around the center does not meet the domain box")

    @property
    def size(self) -> int:
        return self.center.size


@dataclass(frozen=True, eq=False)
class ExactBox:
    """lower <= x <= upper with rational bounds, such as the decimals of a file that no float64 equals.

    >>> ExactBox((Fraction(1, 10),), (Fraction(2, 10),)).size
    1
    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if len(self.lower) != len(self.upper) or not self.lower:
            raise BadRegion(f"lower and upper must have one positive length, got {len(self.lower)} and {len(self.upper)}")
        for i, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if low > high:
                raise BadRegion(f"box is empty: lower {low} > upper {high} at input {i}; swap or widen them")
            if max(abs(low), abs(high)) > float_info.max:
                raise BadRegion(f"bounds must lie in the range of a float64, got {low} and {high} at input {i}")

    @property
    def size(self) -> int:
        return len(self.lower)

    @cached_property
    def floats_around(self) -> tuple[Array, Array]:
        """The smallest float64 box around this one; kept, for rounding fractions is slow."""
        return np.array([round_down(v) for v in self.lower]), np.array([round_up(v) for v in self.upper])

    @cached_property
    def floats_inside(self) -> tuple[Array, Array]:
        """The largest float64 box inside this one, at entries in `between_floats` the float nearest to the lower bound."""
        lower, upper = np.array([round_up(v) for v in self.lower]), np.array([round_down(v) for v in self.upper])
        for i in np.flatnonzero(lower > upper):
            lower[i] = upper[i] = float(self.lower[i])
        return lower, upper

    @cached_property
    def between_floats(self) -> frozenset[int]:
        """The entries with no float64 between their bounds, such as an input fixed to the decimal 0.1."""
        inside = self.floats_inside
        return frozenset(i for i, low in enumerate(self.lower) if not low <= Fraction(float(inside[0][i])) <= self.upper[i])


@dataclass(frozen=True, eq=False)
class Polytope:
    """The inputs of a box that satisfy linear atoms over the input value."""

    box: Box
    constraints: tuple[Atom, ...]

    @property
    def size(self) -> int:
        return self.box.size


Region: TypeAlias = Box | Ball | ExactBox | Polytope


def exact_bounds(region: Region) -> tuple[list[Fraction], list[Fraction]]:
    """Lower and upper bound of each input as exact rationals (a polytope's are those of its box)."""
    match region:
        case Box(lower=lower, upper=upper):
            return [Fraction(v) for v in lower.tolist()], [Fraction(v) for v in upper.tolist()]
        case Ball(center=center, radius=radius, domain=domain):
            r = Fraction(radius)
            points = [Fraction(v) for v in center.tolist()]
            low, high = exact_bounds(domain)
            ends = [max(c - r, lo) for c, lo in zip(points, low, strict=True)]
            return ends, [min(c + r, hi) for c, hi in zip(points, high, strict=True)]
        case ExactBox(lower=low_ends, upper=high_ends):
            return list(low_ends), list(high_ends)
        case Polytope(box=box):
            return exact_bounds(box)


def outer_bounds(region: Region) -> tuple[Array, Array]:
    """The smallest float64 box around the exact bounds."""
    return _rounded_bounds(region, -np.inf, np.inf)


def inner_bounds(region: Region) -> tuple[Array, Array]:
    """The largest float64 box inside the exact bounds; of numbers that `exact_point` takes to the region.

    Where no float64 lies between the two bounds of an entry, both are the float nearest to its lower bound.
    """
    return _rounded_bounds(region, np.inf, -np.inf)


def exact_point(region: Region, x: Array) -> list[Fraction]:
    """The point that float64 numbers stand for: each number is itself, exactly.

    Only where no float64 lies between the bounds of an entry, the float nearest to its lower bound stands for that bound.

    >>> exact_point(ExactBox((Fraction(1, 10), Fraction(0)), (Fraction(1, 10), Fraction(1))), np.array([0.1, 0.1]))[0]
    Fraction(1, 10)
    """
    point = [Fraction(v) for v in x.reshape(-1).tolist()]
    if isinstance(region, ExactBox):
        for i in region.between_floats:
            if point[i] == Fraction(float(region.lower[i])):
                point[i] = region.lower[i]
    return point


def _rounded_bounds(region: Region, lower_to: float, upper_to: float) -> tuple[Array, Array]:
    match region:
        case Box(lower=lower, upper=upper):
            return lower.copy(), upper.copy()
        case Ball(center=center, radius=radius, domain=domain):
            lower = np.maximum(directed_sum(center, -radius, lower_to), domain.lower)
            return lower, np.minimum(directed_sum(center, radius, upper_to), domain.upper)
        case ExactBox():
            low, high = region.floats_around if lower_to < 0 else region.floats_inside
            return low.copy(), high.copy()
        case Polytope(box=box):
            return _rounded_bounds(box, lower_to, upper_to)


def directed_sum(numbers: Array, shift: float, to: float) -> Array:
    """numbers + shift, rounded from the exact sum towards `to`, -inf or inf."""
    total = numbers + shift
    if not np.isfinite(total).all():
        rounded = round_up if to > 0 else round_down
        return np.array([rounded(Fraction(v) + Fraction(shift)) for v in numbers.tolist()])
    # The error of a float sum is a float itself (Knuth's TwoSum), so its sign is exact.
    part = total - numbers
    error = (numbers - (total - part)) + (shift - part)
    return np.where(error * np.sign(to) > 0, np.nextafter(total, to), total)


def constraints(region: Region) -> tuple[Atom, ...]:
    """The linear atoms that cut the region's box."""
    return region.constraints if isinstance(region, Polytope) else ()


def round_down(value: Fraction) -> float:
    """The largest float64 <= value."""
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else float(np.nextafter(nearest, -np.inf))


def round_up(value: Fraction) -> float:
    """The smallest float64 >= value."""
    return -round_down(-value)
