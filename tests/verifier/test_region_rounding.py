"""Float boxes around and inside a region, against rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from verifier.errors import BadRegion
from verifier.region import Ball, Box, directed_sum, exact_bounds, inner_bounds, outer_bounds, round_down, round_up

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SMALL = st.floats(-1e3, 1e3)


@given(FINITE, FINITE)
def test_directed_sums_are_the_neighbours_of_the_exact_sum(a: float, b: float) -> None:
    exact = Fraction(a) + Fraction(b)
    assume(abs(exact) < Fraction(2) ** 1023)
    down, up = (float(directed_sum(np.array([a]), b, to)[0]) for to in (-np.inf, np.inf))
    assert Fraction(down) <= exact <= Fraction(up)
    assert (down, up) == (round_down(exact), round_up(exact))


@given(st.lists(SMALL, min_size=1, max_size=4), st.floats(0, 10))
def test_balls_are_rounded_to_the_nearest_floats_on_either_side(center: list[float], radius: float) -> None:
    ball = Ball(center, radius, Box(np.full(len(center), -1e3), np.full(len(center), 1e3)))
    lower, upper = exact_bounds(ball)
    assert [side.tolist() for side in outer_bounds(ball)] == [list(map(round_down, lower)), list(map(round_up, upper))]
    assert [side.tolist() for side in inner_bounds(ball)] == [list(map(round_up, lower)), list(map(round_down, upper))]


def test_a_ball_just_off_the_domain_is_refused() -> None:
    """0.1 + 0.2 as floats rounds up to 0.30000000000000004; exactly it is below that."""
    edge = 0.1 + 0.2
    with pytest.raises(BadRegion, match="does not meet the domain box"):
        Ball([0.1], 0.2, Box([edge], [1.0]))
    assert inner_bounds(Ball([0.1], 0.2, Box([np.nextafter(edge, 0)], [1.0])))[0].tolist() == [np.nextafter(edge, 0)]
