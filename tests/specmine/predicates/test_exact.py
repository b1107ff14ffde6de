"""Sums compared with thresholds as fractions compare them, where rounding would decide otherwise."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from specmine.predicates.exact import (
    distinct,
    rows_at_least,
    rows_at_most,
    sum_down,
    sum_up,
    sums_at_least,
    sums_at_most,
    weighted_at_least,
)

MOST = float(np.finfo(np.float64).max)
HARD = (0.1, 0.2, 0.3, 1.0, 1e16, 1e16 + 2, 2.0**-53, 2.0**-54, 2.0**-106, 5e-324, 2.0**970, MOST, 0.0, -0.0, 3.0)
floats = st.sampled_from([*HARD, *(-v for v in HARD)]) | st.floats(allow_nan=False, allow_infinity=False)


def near(value: float) -> st.SearchStrategy[float]:
    """The float nearest to a sum and its neighbours, as thresholds."""
    around = [value, math.nextafter(value, -math.inf), math.nextafter(value, math.inf)]
    return st.sampled_from([v for v in around if np.isfinite(v)] or [0.0])


@pytest.mark.parametrize("terms", [2, 3])
@settings(max_examples=2000, deadline=None)
@given(st.data())
def test_rounded_sums_compare_as_the_exact_ones(terms, data):
    values = [data.draw(floats) for _ in range(terms)]
    if terms == 3 and data.draw(st.booleans()) and np.isfinite(values[0] + values[1]):
        values[2] = -(values[0] + values[1])  # cancels to what the first sum left out
    exact = sum(map(Fraction, values))
    try:
        rounded = float(exact)
    except OverflowError:
        rounded = MOST if exact > 0 else -MOST
    threshold = data.draw(near(rounded) | floats)
    arrays = [np.array([[v]]) for v in values]
    assert (sum_down(*arrays) >= threshold).item() == (exact >= Fraction(threshold))
    assert (sum_up(*arrays) <= threshold).item() == (exact <= Fraction(threshold))


def test_sums_by_hand():
    a, b = np.array([0.1, 1e16, 1.0]), np.array([0.2, 1.0, 1.0])
    assert sum_down(a, b).tolist() == [0.30000000000000004 - 2**-54, 1e16, 2.0]
    assert sum_up(a, b).tolist() == [0.30000000000000004, 1e16 + 2, 2.0]
    assert sum_down(a, b, -b).tolist() == a.tolist() == sum_up(a, b, -b).tolist()


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=6), st.fractions(), st.data())
@example([(1.0, 0.1)] * 3, Fraction(3 * 0.1), None)
def test_weighted_sums_compare_as_the_exact_ones(terms, threshold, data):
    terms = [(w, v) for w, v in terms if abs(w) < 1e140 and abs(v) < 1e140]
    weights, values = np.array([w for w, _ in terms]), np.array([v for _, v in terms])
    exact = sum((Fraction(w) * Fraction(v) for w, v in terms), Fraction(0))
    thresholds = [threshold, exact, exact + Fraction(1, 2**80), exact - Fraction(1, 2**80)]
    for at in thresholds if abs(threshold) < 10**300 else thresholds[1:]:
        assert weighted_at_least(weights, values[:, None], at).tolist() == [exact >= at]


def test_plain_weights_are_summed_without_rounding():
    values = np.array([[0.1, 1e16], [0.2, 1.0], [-0.3, -1e16]])
    assert weighted_at_least(np.ones(3), values, Fraction(0)).tolist() == [True, True]
    assert weighted_at_least(np.ones(3), values, Fraction(1)).tolist() == [False, True]
    assert weighted_at_least(np.ones(3), values, Fraction(2.0**-55)).tolist() == [True, True]
    assert weighted_at_least(np.ones(3), values, Fraction(2.0**-55) + Fraction(1, 2**200)).tolist() == [False, True]


def test_weighted_sums_compare_with_thresholds_beyond_the_range_of_floats():
    values = np.array([[1.7e308, -1.7e308, 1.0], [1.7e308, -1.7e308, 2.0]])
    assert weighted_at_least(np.ones(2), values, 2 * Fraction(1.5e308)).tolist() == [True, False, False]
    assert weighted_at_least(np.ones(2), values, -2 * Fraction(1.5e308)).tolist() == [True, False, True]


def test_thresholds_meet_their_rows():
    values = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]])
    rows, thresholds = np.array([1, 0, 0]), np.array([0.0, 2.0, 3.5])
    assert rows_at_least(values, rows, thresholds).tolist() == [[True] * 3, [False, True, True], [False] * 3]
    assert rows_at_most(values, rows, thresholds).tolist() == [[True, True, False], [True, True, False], [True] * 3]


def test_distinct_tuples():
    (i, j), inverse = distinct(np.array([2, 0, 2, 2]), np.array([1, 1, 1, 0]))
    assert list(zip(i[inverse], j[inverse], strict=True)) == [(2, 1), (0, 1), (2, 1), (2, 0)] and len(i) == 3


@pytest.mark.parametrize("count", [2, 3])
def test_many_sums_and_thresholds_at_once(count):
    rng = np.random.default_rng(count)
    hard = np.array([*HARD, *(-v for v in HARD)])
    for _ in range(20):
        terms = [rng.choice(hard, (4, 30)) for _ in range(count)]
        which, thresholds = rng.integers(0, 4, 12), rng.choice(hard, 12)
        exact = [[sum(Fraction(float(t[row, k])) for t in terms) for k in range(30)] for row in which]
        bounds = [Fraction(float(c)) for c in thresholds]
        above = [[total >= c for total in row] for row, c in zip(exact, bounds, strict=True)]
        below = [[total <= c for total in row] for row, c in zip(exact, bounds, strict=True)]
        assert sums_at_least(terms, which, thresholds).tolist() == above
        assert sums_at_most(terms, which, thresholds).tolist() == below
