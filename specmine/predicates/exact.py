"""Comparisons of sums of float64 values with thresholds, as exact arithmetic decides them, at the speed of floats.

A sum is rounded down (or up) to a float64 from its nearest float64 and the sign of what that left out, which error-free
transformations give (Knuth's TwoSum; Ogita, Rump and Oishi 2005). Rounded down, it is at least a float64 threshold exactly
where the sum itself is.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import inf, nextafter

import numpy as np
from numpy.typing import NDArray

from verifier.ops import Array

Truth = NDArray[np.bool_]
Places = NDArray[np.int64]


def sum_down(*terms: Array) -> Array:
    """The greatest float64 <= the exact sum of two or three finite arrays of one shape, entry by entry.

    inf where the sum is too large for a float64. So `sum_down(a, b) >= c` is the truth of a + b >= c for every float64 c.

    >>> sum_down(np.array([0.1]), np.array([0.2])) >= 0.30000000000000004
    array([False])
    """
    return _towards(-inf, terms)


def sum_up(*terms: Array) -> Array:
    """The least float64 >= the exact sum, so that `sum_up(a, b) <= c` is the truth of a + b <= c for every float64 c."""
    return _towards(inf, terms)


def rows_at_least(values: Array, rows: Places, thresholds: Array) -> Truth:
    """values[rows[p]] >= thresholds[p], (predicates, samples), for values (any, samples)."""
    return _compared(np.greater_equal, values, rows, thresholds)


def rows_at_most(values: Array, rows: Places, thresholds: Array) -> Truth:
    """values[rows[p]] <= thresholds[p], (predicates, samples), for values (any, samples)."""
    return _compared(np.less_equal, values, rows, thresholds)


def sums_at_least(terms: Sequence[Array], which: Places, thresholds: Array) -> Truth:
    """sum of terms[k][which[p]] >= thresholds[p], (predicates, samples), for two or three terms (distinct, samples)."""
    return _sums(np.greater_equal, sum_down, terms, which, thresholds)


def sums_at_most(terms: Sequence[Array], which: Places, thresholds: Array) -> Truth:
    """sum of terms[k][which[p]] <= thresholds[p], (predicates, samples), for two or three terms (distinct, samples)."""
    return _sums(np.less_equal, sum_up, terms, which, thresholds)


def distinct(*indices: Places) -> tuple[tuple[Places, ...], Places]:
    """The distinct tuples of equally long index arrays, and which of them each entry is, so that each is computed once.

    >>> distinct(np.array([3, 1, 3]), np.array([0, 2, 0]))
    ((array([1, 3]), array([2, 0])), array([1, 0, 1]))
    """
    unique, inverse = np.unique(np.stack(indices), axis=1, return_inverse=True)
    return tuple(unique), inverse.reshape(-1)


def weighted_at_least(weights: Array, values: Array, threshold: Fraction) -> Truth:
    """sum_k weights[k] * values[k] >= threshold, (samples,), for weights (terms,) and values (terms, samples).

    Decided in float64 where rounding cannot matter, in fractions for the samples where it could.
    """
    steps, limit = len(weights) + 4, _nearest(threshold)
    with np.errstate(over="ignore", invalid="ignore"):
        total = weights @ values - limit
        size = np.abs(weights) @ np.abs(values) + abs(limit)
        # sound: every product and sum, and the limit, is off by one rounding; underflow adds less than the second part; where
        # anything is infinite, so is the size, and nothing is sure
        sure = np.abs(total) > 1.01 * steps * 2.0**-53 * size + steps * 5e-324
    truth = total > 0
    exact = [Fraction(weight) for weight in weights.tolist()]
    for sample in np.flatnonzero(~sure).tolist():
        truth[sample] = sum((w * Fraction(v) for w, v in zip(exact, values[:, sample].tolist(), strict=True)), -threshold) >= 0
    return truth


def _compared(relation: np.ufunc, values: Array, rows: Places, thresholds: Array) -> Truth:
    truth = np.empty((len(rows), values.shape[1]), dtype=bool)
    for place, (row, threshold) in enumerate(zip(rows.tolist(), thresholds.tolist(), strict=True)):
        relation(values[row], threshold, out=truth[place])
    return truth


def _sums(relation: np.ufunc, rounded: Callable[..., Array], terms: Sequence[Array], which: Places, thresholds: Array) -> Truth:
    """Compared as floats, each sum made once; what rounding could have turned is summed again, without it."""
    truth = np.empty((len(which), terms[0].shape[1]), dtype=bool)
    row, total, slack = -1, np.empty(0), 0.0
    for place in np.argsort(which, kind="stable").tolist():
        threshold = thresholds[place]
        with np.errstate(over="ignore", invalid="ignore"):
            if which[place] != row:
                row = int(which[place])
                total = sum((term[row] for term in terms[2:]), terms[0][row] + terms[1][row])
                # sound: one rounding keeps the order of a sum of two with any float64; two are off by less than this
                slack = (
                    0.0
                    if len(terms) == 2
                    else 5e-324 + 2.0**-50 * float(sum(np.abs(term[row]).max(initial=0) for term in terms))
                )
            relation(total, threshold, out=truth[place])
            near = ~(np.abs(total - threshold) > slack) if slack else total == threshold
            doubtful = np.flatnonzero(near)
        if len(doubtful):
            truth[place, doubtful] = relation(rounded(*(term[row, doubtful] for term in terms)), threshold)
    return truth


def _towards(side: float, terms: Sequence[Array]) -> Array:
    """The exact sum rounded towards -inf or inf."""
    with np.errstate(over="ignore", invalid="ignore"):
        nearest, rest = _two_sum(terms[0], terms[1])
        if len(terms) == 3:
            nearest, rest = _third(nearest, rest, terms[2])
        outside = rest < 0 if side < 0 else rest > 0
        # sound: |rest| is less than the distance to the next float64 on its side, so the exact sum lies between the two
        nearest[outside] = np.nextafter(nearest[outside], side)
    for place in zip(*np.nonzero(~np.isfinite(rest)), strict=True):  # some step left the range of float64
        nearest[place] = _rounded(sum(Fraction(float(term[place])) for term in terms), side)
    return nearest


def _third(first: Array, rest: Array, third: Array) -> tuple[Array, Array]:
    """The sum of first + rest + third as a float64 next to it, and a number with the sign of what is left.

    rest is what rounding left of `first`. Where the second sum cancels it is exact (Sterbenz), else the two rests are below
    two units in its last place: either way the last remainder is smaller than the gap between floats.
    """
    second, rest_of_second = _two_sum(first, third)
    rests, lost = _two_sum(rest, rest_of_second)
    nearest, rest_of_all = _two_sum(second, rests)
    return nearest, rest_of_all + lost


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum and exactly what rounding left out; NaN for the latter where a step overflows."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _rounded(exact: Fraction | int, side: float) -> float:
    nearest = _nearest(exact)
    if abs(nearest) == inf:
        # the greatest (least) float64 lies between such a sum and nothing else that a threshold can be
        return nearest
    return nextafter(nearest, side) if (Fraction(nearest) > exact) == (side < 0) and nearest != exact else nearest


def _nearest(exact: Fraction | int) -> float:
    """The nearest float64, infinite beyond their range."""
    try:
        return float(exact)
    except OverflowError:
        return inf if exact > 0 else -inf
