"""Regions: their exact bounds, and the float boxes around and inside them."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from verifier.errors import BadRegion
from verifier.formula import at_most
from verifier.region import (
    Ball,
    Box,
    Polytope,
    constraints,
    exact_bounds,
    inner_bounds,
    outer_bounds,
    round_down,
    round_up,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
fractions = st.one_of(
    st.fractions(), finite.map(Fraction), st.tuples(finite, finite).map(lambda p: Fraction(p[0]) / 3 + Fraction(p[1]) / 7)
)


@given(fractions)
def test_rounding_is_directed_and_tight(value):
    assume(abs(value) < Fraction(np.finfo(np.float64).max))
    low, high = round_down(value), round_up(value)
    assert Fraction(low) <= value <= Fraction(high)
    assert (low == high) == (Fraction(float(value)) == value)
    assert low == high or np.nextafter(low, np.inf) == high


@given(finite)
def test_floats_round_to_themselves(value):
    assert round_down(Fraction(value)) == round_up(Fraction(value)) == value


@st.composite
def balls(draw):
    size = draw(st.integers(1, 4))
    values = st.floats(-10, 10)
    lower = np.array(draw(st.lists(values, min_size=size, max_size=size)))
    domain = Box(lower, lower + np.array(draw(st.lists(st.floats(0, 5), min_size=size, max_size=size))))
    share = draw(st.floats(0, 1))
    center = np.clip(domain.lower + share * (domain.upper - domain.lower), domain.lower, domain.upper)
    return Ball(center, draw(st.floats(0, 3)), domain)


@given(balls())
def test_ball_is_the_exact_clipped_interval(ball):
    lower, upper = exact_bounds(ball)
    radius = Fraction(ball.radius)
    for k in range(ball.size):
        center = Fraction(float(ball.center[k]))
        assert lower[k] == max(center - radius, Fraction(float(ball.domain.lower[k])))
        assert upper[k] == min(center + radius, Fraction(float(ball.domain.upper[k])))
        assert lower[k] <= center <= upper[k]


@given(balls())
def test_outer_and_inner_boxes_enclose_the_exact_one(ball):
    lower, upper = exact_bounds(ball)
    (outer_low, outer_high), (inner_low, inner_high) = outer_bounds(ball), inner_bounds(ball)
    for k in range(ball.size):
        assert Fraction(outer_low[k]) <= lower[k] <= Fraction(inner_low[k])
        assert Fraction(inner_high[k]) <= upper[k] <= Fraction(outer_high[k])
        assert np.nextafter(outer_low[k], np.inf) >= inner_low[k] and np.nextafter(inner_high[k], np.inf) >= outer_high[k]


@given(balls())
def test_bounds_of_a_box_are_its_own(ball):
    for bounds in (outer_bounds(ball.domain), inner_bounds(ball.domain)):
        np.testing.assert_array_equal(bounds, (ball.domain.lower, ball.domain.upper))


def test_ball_by_hand():
    """0.1 + 0.2 is not a float64: the exact end lies between two of them."""
    ball = Ball([0.1, 0.9], 0.2, Box([0.0, 0.0], [1.0, 1.0]))
    lower, upper = exact_bounds(ball)
    assert lower == [Fraction(0), Fraction(0.9) - Fraction(0.2)]
    assert upper == [Fraction(0.1) + Fraction(0.2), Fraction(1)]
    assert inner_bounds(ball)[1][0] == np.nextafter(outer_bounds(ball)[1][0], 0)


def test_inner_box_may_be_empty_between_two_floats():
    """The exact ball meets the domain in one float only at its edge; no bound is invented."""
    ball = Ball([1.0], 2.0**-60, Box([0.0], [2.0]))
    lower, upper = inner_bounds(ball)
    assert lower.tolist() == upper.tolist() == [1.0]
    outer = outer_bounds(ball)
    assert outer[0][0] < 1.0 < outer[1][0]


def test_polytope_has_the_bounds_of_its_box():
    cut = at_most("x", 0, 0.5)
    polytope = Polytope(Box([0.0], [1.0]), (cut,))
    assert exact_bounds(polytope) == ([0], [1]) and constraints(polytope) == (cut,) and polytope.size == 1
    assert constraints(polytope.box) == ()


def test_arrays_are_copied_and_read_only():
    lower = np.zeros((1, 2))
    box = Box(lower, np.ones((1, 2)))
    lower[0, 0] = 7
    assert box.lower.tolist() == [0, 0] and not box.upper.flags.writeable


UNIT = Box([0.0, 0.0], [1.0, 1.0])

BAD = [
    (lambda: Box([0.0], [1.0, 2.0]), "one positive length, got 1 and 2"),
    (lambda: Box([], []), "one positive length, got 0 and 0"),
    (lambda: Box([0.0], [np.inf]), "must be finite"),
    (lambda: Box([np.nan], [1.0]), "must be finite"),
    (lambda: Box([0.0, 2.0], [1.0, 1.0]), "box is empty: .* at input 1"),
    (lambda: Ball([0.5, 0.5], -0.1, UNIT), "radius must be a finite number >= 0, got -0.1"),
    (lambda: Ball([0.5, 0.5], np.nan, UNIT), "radius must be a finite number"),
    (lambda: Ball([0.5], 0.1, UNIT), "center has 1 entries but the domain has 2"),
    (lambda: Ball([0.5, np.nan], 0.1, UNIT), "center must be finite"),
    (lambda: Ball([0.5, 1.5], 0.25, UNIT), "does not meet the domain box"),
]


@pytest.mark.parametrize("make, message", BAD, ids=[message for _, message in BAD])
def test_bad_regions_are_refused(make, message):
    with pytest.raises(BadRegion, match=message):
        make()
