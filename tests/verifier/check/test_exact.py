from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array

from verifier.check.exact import (
    OutOfRange,
    Part,
    assert_ieee_arithmetic,
    column,
    float_above,
    float_below,
    floats,
    gather,
    multiply,
    slices,
    spread,
    times,
    total,
    whole_part,
)

MANY = 200
numbers = st.one_of(
    st.floats(-4, 4, width=32),
    st.integers(-8, 8).map(float),
    st.floats(min_value=-1e200, max_value=1e200, allow_nan=False),
    st.floats(min_value=-1e-300, max_value=1e-300),
    st.sampled_from([5e-324, -5e-324, 2.0**53, -(2.0**53) + 1, 1e-40]),
)


def matrices(rows: int, columns: int):
    return arrays(np.float64, (rows, columns), elements=numbers)


def exactly(matrix: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(v)) for v in row] for row in matrix]


def value(parts: list[Part]) -> list[list[Fraction]]:
    rows, columns = parts[0].integers.shape
    picked = [total([Part(p.integers[:, [c]], p.exponents) for p in parts], rows) for c in range(columns)]
    return [list(row) for row in zip(*picked, strict=True)]


@settings(max_examples=60, deadline=None)
@given(matrices(3, 4), matrices(4, 2), st.booleans())
def test_product_equals_fraction_arithmetic(left: np.ndarray, right: np.ndarray, is_sparse: bool) -> None:
    factor, rest = slices(csr_array(right) if is_sparse else right)
    assert not (rest.data if is_sparse else rest).any()
    products = [p for part in spread(left, count=MANY) for p in multiply(part, factor)]
    found = value([*products, whole_part(np.zeros((3, 2)))])
    a, b = exactly(left), exactly(right)
    assert found == [[sum(a[i][k] * b[k][j] for k in range(4)) for j in range(2)] for i in range(3)]


@settings(max_examples=60, deadline=None)
@given(matrices(2, 3), matrices(1, 3))
def test_entrywise_product_equals_fraction_arithmetic(left: np.ndarray, right: np.ndarray) -> None:
    found = value([p for a in spread(left, count=MANY) for b in spread(right, count=MANY) for p in times(a, b)])
    assert found == [[x * y for x, y in zip(row, exactly(right)[0], strict=True)] for row in exactly(left)]


@settings(max_examples=60, deadline=None)
@given(st.lists(matrices(2, 3), min_size=1, max_size=4), st.sampled_from([20, 44, 52]))
def test_gather_rounds_as_it_says(summands: list[np.ndarray], bits: int) -> None:
    parts = [part for s in summands for part in spread(s, count=MANY)]
    true = np.array(value(parts), dtype=object)
    down, up = (floats(gather(parts, bits, r)[0]) for r in (np.floor, np.ceil))
    assert all(Fraction(lo) <= t <= Fraction(hi) for lo, t, hi in zip(down.flat, true.flat, up.flat, strict=True))
    near, inexact = gather(parts, bits)
    for (i, j), t in np.ndenumerate(true):
        allowed = 0 if inexact is None else Fraction(inexact[i, j]) * Fraction(2) ** int(near.exponents[i, 0] - 1)
        assert abs(Fraction(near.integers[i, j]) * Fraction(2) ** int(near.exponents[i, 0]) - t) <= allowed


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, 5, elements=numbers), st.integers(1, 4))
def test_rounded_columns_and_rows_bound_what_they_round(values: np.ndarray, count: int) -> None:
    true = exactly(values[None, :])[0]
    for rounding, sign in ((np.floor, 1), (np.ceil, -1)):
        as_column = column(values, count=count, rounding=rounding)
        summands = zip(as_column.matrices, as_column.exponents, strict=True)
        parts = [whole_part(m, e) for m, e in summands] or [whole_part(np.zeros((5, 1)))]
        assert len(parts) <= count
        assert all(sign * (t - f) >= 0 for t, f in zip(true, total(parts, 5), strict=True))
        (as_row,) = value(spread(values[None, :], count=count, rounding=rounding))
        assert all(sign * (t - f) >= 0 for t, f in zip(true, as_row, strict=True))


def test_slices_leave_a_rest_of_the_same_sign() -> None:
    matrix = np.array([[1.0 + 2.0**-30, -(2.0**-60)], [3 * 2.0**-50, 0.5]])
    kept, rest = slices(matrix, count=2)
    assert rest.tolist() == [[0.0, -(2.0**-60)], [3 * 2.0**-50, 0.0]]
    assert total([whole_part(m[:, [0]], e) for m, e in zip(kept.matrices, kept.exponents, strict=True)], 2) == [
        1 + Fraction(1, 2**30),
        0,
    ]


def test_a_wide_product_is_exact_at_full_length() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(3, 5000)), rng.normal(size=(5000, 2)) * 2.0 ** rng.integers(-30, 30, size=(5000, 2))
    products = [p for part in spread(left, count=MANY) for p in multiply(part, slices(right)[0])]
    a, b = exactly(left), exactly(right)
    assert value(products) == [[sum(x * y[j] for x, y in zip(row, b, strict=True)) for j in range(2)] for row in a]


def test_too_large_numbers_are_refused() -> None:
    with pytest.raises(OutOfRange, match=r"2\*\*900"):
        gather([whole_part(np.ones((1, 1)), 901)], 44)
    with pytest.raises(OutOfRange, match=r"2\*\*900"):
        float_below(Fraction(10) ** 400)


@given(st.fractions())
def test_float_bounds_of_a_fraction_are_tight(number: Fraction) -> None:
    below, above = float_below(number), float_above(number)
    assert Fraction(below) <= number <= Fraction(above)
    assert above == below or above == np.nextafter(below, np.inf)


def test_this_machine_computes_as_assumed() -> None:
    assert_ieee_arithmetic()
