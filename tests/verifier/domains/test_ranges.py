"""Ranges and parallelograms of curves, judged by mpmath at fifty digits."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.domains.parallelograms import parallelogram
from verifier.domains.ranges import FAR, LIBM, RANGES
from verifier.domains.rounding import TINY
from verifier.evaluate import FORWARD
from verifier.ops import Cos, Erf, Exp, Floor, Power, Product, Reciprocal, Sigmoid, Sign, Sin, Sqrt, Tanh

mpmath.mp.dps = 50

EXACT = {
    "sigmoid": (Sigmoid(), lambda x: 1 / (1 + mpmath.exp(-x))),
    "tanh": (Tanh(), mpmath.tanh),
    "sin": (Sin(), mpmath.sin),
    "cos": (Cos(), mpmath.cos),
    "exp": (Exp(), mpmath.exp),
    "reciprocal": (Reciprocal(), lambda x: 1 / x),
    "root": (Sqrt(), mpmath.sqrt),
    "erf": (Erf(), mpmath.erf),
    "square": (Power(2), lambda x: x**2),
    "cube": (Power(3), lambda x: x**3),
    "sixth power": (Power(6), lambda x: x**6),
    "seventh power": (Power(7), lambda x: x**7),
    "sign": (Sign(), mpmath.sign),
    "floor": (Floor(), mpmath.floor),
}
TURNS = [mpmath.mpf(0), *(k * mpmath.pi / 2 for k in range(-200, 201))]


def range_of(op, lower, upper):
    low, high = RANGES[type(op)](op, [(torch.tensor([lower], dtype=torch.float64), torch.tensor([upper], dtype=torch.float64))])
    return float(low), float(high)


def inside(lower, upper):
    """Places to look at: both ends, an even spread, and every multiple of a quarter turn."""
    a, b = mpmath.mpf(lower), mpmath.mpf(upper)
    return [a, b, *(a + (b - a) * k / 40 for k in range(1, 40)), *(t for t in TURNS if a <= t <= b)]


sizes = st.sampled_from([1e-9, 1e-3, 0.1, 1.0, 3.0, 30.0])
centers = st.one_of(st.floats(-3, 3), st.floats(-200, 200), st.just(0.0))


@st.composite
def boxes(draw, op):
    center, left, right = draw(centers), draw(sizes), draw(sizes)
    if isinstance(op, Reciprocal):
        near = abs(center) + 1e-6
        return (near, near + right) if center >= 0 else (-near - right, -near)
    if isinstance(op, Sqrt):
        return max(abs(center) - left, 0.0), abs(center) + right
    return center - left * draw(st.floats(0, 1)), center + right * draw(st.floats(0, 1))


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_ranges_hold_and_are_tight(name, data):
    op, exact = EXACT[name]
    lower, upper = data.draw(boxes(op))
    low, high = range_of(op, lower, upper)
    values = [exact(x) for x in inside(lower, upper)]
    assert mpmath.mpf(low) <= min(values) and max(values) <= mpmath.mpf(high)
    if not isinstance(op, Sin | Cos) or upper - lower < 100:
        # the spread of places meets the extremes, except for a very wide wave
        size = float(max(map(abs, values)))
        assert high <= float(max(values)) + 1e-13 * (1 + size) and low >= float(min(values)) - 1e-13 * (1 + size)


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_parallelograms_hold_the_graph(name, data):
    op, exact = EXACT[name]
    lower, upper = data.draw(boxes(op))
    found = parallelogram(op, torch.tensor([lower], dtype=torch.float64), torch.tensor([upper], dtype=torch.float64))
    slope, middle, half = (mpmath.mpf(float(x)) for x in found)
    assert all(abs(exact(x) - slope * x - middle) <= half for x in inside(lower, upper))
    low, high = range_of(op, lower, upper)
    assert high == math.inf or half <= (high - low) / 2 + 1e-13 * (1 + max(abs(low), abs(high)))


ONE_WAY = [("square", -1.0, 3.0), ("exp", 0.0, 2.0), ("reciprocal", 0.5, 2.0), ("root", 0.25, 4.0)]


@pytest.mark.parametrize("name, lower, upper", ONE_WAY)
def test_a_curve_that_bends_one_way_has_the_thinnest_parallelogram(name, lower, upper):
    """The chord and the parallel tangent: no other pair of parallel lines is closer together."""
    op, exact = EXACT[name]
    _, _, half = parallelogram(op, torch.tensor([lower], dtype=torch.float64), torch.tensor([upper], dtype=torch.float64))
    chord = (exact(mpmath.mpf(upper)) - exact(mpmath.mpf(lower))) / (mpmath.mpf(upper) - lower)
    tangent = mpmath.findroot(lambda x: mpmath.diff(exact, x) - chord, (lower + upper) / 2)
    best = abs(exact(mpmath.mpf(lower)) - chord * lower - (exact(tangent) - chord * tangent)) / 2
    assert float(half) == pytest.approx(float(best), rel=1e-10)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "erf", "sin", "cos", "exp"])
def test_the_library_is_as_precise_as_assumed(name):
    """Half of what is allowed for: 4 ulp."""
    op, exact = EXACT[name]
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=300) * s for s in (1e-3, 1.0, 20.0, 300.0)] + [rng.uniform(-FAR, FAR, 300)])
    found = FORWARD[type(op)](op, [torch.from_numpy(x)]).tolist()
    for at, value in zip(x.tolist(), found, strict=True):
        if math.isfinite(value):
            assert abs(mpmath.mpf(value) - exact(mpmath.mpf(at))) <= LIBM / 2 * abs(exact(mpmath.mpf(at))) + TINY


BY_HAND = [
    (Sign(), -0.5, 2.0, -1.0, 1.0),
    (Sign(), 0.0, 2.0, 0.0, 1.0),
    (Floor(), -0.5, 2.0, -1.0, 2.0),
    (Floor(), 1.25, 1.75, 1.0, 1.0),
    (Reciprocal(), -1.0, 2.0, -math.inf, math.inf),
    (Reciprocal(), 0.0, 2.0, -math.inf, math.inf),
    (Sqrt(), -1e-300, 2.0, -math.inf, math.inf),
    (Sqrt(), -2.0, -1.0, -math.inf, math.inf),
    (Erf(), -math.inf, math.inf, -1.0, 1.0),
    (Sin(), 0.0, math.inf, -1.0, 1.0),
    (Cos(), 2e5, 2e5, -1.0, 1.0),
    (Power(2), -math.inf, 1.0, 0.0, math.inf),
    (Power(3), -math.inf, math.inf, -math.inf, math.inf),
    (Exp(), -math.inf, math.inf, 0.0, math.inf),
    (Sigmoid(), -math.inf, math.inf, 0.0, 1.0),
    (Tanh(), -math.inf, math.inf, -1.0, 1.0),
]


@pytest.mark.parametrize("op, lower, upper, low, high", BY_HAND)
def test_ranges_by_hand(op, lower, upper, low, high):
    assert range_of(op, lower, upper) == (low, high)


def test_overflow_bounds_from_below_by_a_number():
    low, high = range_of(Exp(), 1000.0, 1001.0)
    assert 1e308 < low < math.inf and high == math.inf


PRODUCTS = [
    ((-1.0, 2.0), (3.0, 5.0), -5.0, 10.0),
    ((-2.0, 1.0), (-3.0, 5.0), -10.0, 6.0),
    ((0.0, 0.0), (-math.inf, math.inf), 0.0, 0.0),
    ((0.0, 1.0), (-math.inf, 2.0), -math.inf, 2.0),
    ((-1.0, 1.0), (-math.inf, math.inf), -math.inf, math.inf),
]


@pytest.mark.parametrize("first, second, low, high", PRODUCTS)
def test_products_by_hand(first, second, low, high):
    pairs = [tuple(torch.tensor([end], dtype=torch.float64) for end in pair) for pair in (first, second)]
    found = [float(side) for side in RANGES[Product](Product(), pairs)]
    assert found == pytest.approx([low, high], abs=1e-14)
    assert found[0] <= low and found[1] >= high
