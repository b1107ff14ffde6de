"""Exact arithmetic on arrays, carried out by float64 hardware on whole numbers.

A float64 holds every whole number up to 2**53. A `Part` is a matrix of such numbers with a power of two for each row; a number
matrix too wide for one part is a list of parts, whose sum it is. A product of parts is split so finely that no partial sum of
it, in whatever order the hardware adds, passes 2**53: it is then exact, and the bound is asserted from the actual entries.
Rounding happens in three places only, `slices`, `spread` and `gather`, and each says in which direction or how often.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from verifier.ops import Array
from verifier.region import round_down

Matrix: TypeAlias = Array | csr_array
Rounding: TypeAlias = Callable[[Array], Array]

MANTISSA = 53
LIMIT = 2.0**MANTISSA
SLICE_BITS = 22
COEFFICIENT_BITS = 44
BOUND_BITS = 52
SMALLEST_EXPONENT, LARGEST_EXPONENT = -900, 900


class OutOfRange(ArithmeticError):
    """A number beyond 2**900, where float64 could overflow."""


@dataclass(frozen=True, eq=False)
class Part:
    """Row i stands for integers[i] * 2**exponents[i, 0].

    integers: (rows, columns), whole numbers of magnitude at most 2**53; exponents: (rows, 1).
    """

    integers: Array
    exponents: NDArray[np.int64]

    def scaled(self, exponent: int) -> "Part":
        """This times 2**exponent."""
        return Part(self.integers, self.exponents + exponent)

    def negative(self) -> "Part":
        return Part(-self.integers, self.exponents)


@dataclass(frozen=True, eq=False)
class Slices:
    """sum_k matrices[k] * 2**exponents[k]; entries are whole; reaches[k] is matrix k's largest column sum of magnitudes."""

    matrices: tuple[Matrix, ...]
    exponents: tuple[int, ...]
    reaches: tuple[float, ...]


def assert_ieee_arithmetic() -> None:
    """Fails where this thread flushes tiny numbers to zero or does not round to nearest."""
    tiny, one = np.array([5e-324]), np.array([1.0])
    keeps_tiny = bool((tiny * 2.0**60 > 0).all() and (tiny + 0.0 > 0).all())
    to_nearest = bool((one + 2.0**-54 == 1).all() and (-one - 2.0**-54 == -1).all() and (one + 3 * 2.0**-54 > 1).all())
    assert keeps_tiny and to_nearest, "exact checks need IEEE float64: round to nearest and do not flush denormals"


def slices(matrix: Matrix, *, count: int | None = None, rounding: Rounding = np.trunc) -> tuple[Slices, Matrix]:
    """The matrix as slices of 22 bits below its largest entry, at most `count` of them, and what is left over.

    rounding: np.trunc leaves matrix = slices + rest, each of the matrix's sign; np.floor or np.ceil round the last slice down
    or up, so that the slices bound the matrix from below or above and the rest, of known sign, may be dropped.
    """
    rest = _entries(matrix)
    matrices: list[Matrix] = []
    exponents: list[int] = []
    exponent = _top(rest)
    while rest.any() and (count is None or len(matrices) < count):
        exponent -= SLICE_BITS
        last = count is not None and len(matrices) + 1 == count
        whole, rest = _cut(rest, np.asarray(exponent), rounding if last else np.trunc)
        if whole.any():
            zeros = _trailing_zeros(whole)
            matrices.append(_with_entries(matrix, whole * 2.0**-zeros))
            exponents.append(exponent + zeros)
        elif count is None:
            exponent = _top(rest)
    reaches = tuple(_reach(m) for m in matrices)
    return Slices(tuple(matrices), tuple(exponents), reaches), _with_entries(matrix, rest)


def slices_of(matrices: Sequence[Matrix], exponents: Sequence[int]) -> Slices:
    """Slices from matrices of whole numbers."""
    return Slices(tuple(matrices), tuple(exponents), tuple(_reach(m) for m in matrices))


def column(values: Array, *, count: int | None = None, rounding: Rounding = np.trunc) -> Slices:
    """A vector as slices of one column, rounded as `slices` does (exact by default)."""
    return slices(values.reshape(-1, 1), count=count, rounding=rounding)[0]


def spread(values: Array, *, count: int = 2, bits: int = COEFFICIENT_BITS, rounding: Rounding = np.trunc) -> list[Part]:
    """Rows of floats as at most `count` parts of some bits each below the row's largest entry, the last one rounded."""
    rest = values
    parts: list[Part] = []
    exponents = np.frexp(np.abs(values).max(axis=1, keepdims=True, initial=0.0))[1].astype(np.int64)
    while rest.any() and len(parts) < count:
        exponents = exponents - bits
        whole, rest = _cut(rest, exponents, rounding if len(parts) + 1 == count else np.trunc)
        parts.append(Part(whole, exponents))
    return parts or [Part(np.zeros(values.shape), np.zeros((len(values), 1), dtype=np.int64))]


def whole_part(integers: Array, exponent: int = 0) -> Part:
    """integers * 2**exponent, for a matrix of whole numbers."""
    return Part(integers, np.full((len(integers), 1), exponent, dtype=np.int64))


def multiply(part: Part, factor: Slices) -> list[Part]:
    """The exact matrix product part @ factor, as parts."""
    if not factor.matrices:
        return []
    reach, rows = max(factor.reaches), len(part.integers)
    width = MANTISSA - math.frexp(reach)[1]
    assert width >= 1, f"column sums of {reach} leave no room for an exact product"
    chunks = _chunks(part.integers, width)
    stacked = np.concatenate([chunk for chunk, _ in chunks]) if len(chunks) > 1 else chunks[0][0]
    # Whatever is added in whatever order, no partial sum passes the sum of magnitudes.
    assert _largest(stacked) * reach <= LIMIT, "a partial sum could pass 2**53"
    products = []
    for matrix, exponent in zip(factor.matrices, factor.exponents, strict=True):
        result = np.asarray(stacked @ matrix)
        products += [
            Part(result[k * rows : (k + 1) * rows], part.exponents + (exponent + shift)) for k, (_, shift) in enumerate(chunks)
        ]
    return products


def times(part: Part, other: Part) -> list[Part]:
    """The exact product entry by entry, as parts; `other` may have one row for all."""
    products = []
    for right, right_shift in _chunks(other.integers, 31):
        width = MANTISSA - math.frexp(_largest(right))[1]
        for left, left_shift in _chunks(part.integers, width):
            assert _largest(left) * _largest(right) <= LIMIT, "a product could pass 2**53"
            products.append(Part(left * right, part.exponents + other.exponents + (left_shift + right_shift)))
    return products


def gather(parts: Sequence[Part], bits: int, rounding: Rounding = np.rint) -> tuple[Part, Array | None]:
    """The sum of parts as one part of at most `bits` bits a row, and how many of its summands were rounded at each entry.

    With np.floor (np.ceil) the result is at most (at least) the sum; with np.rint it differs from the sum by at most half a
    unit, 2**(exponent - 1), for each rounded summand. The count is None where nothing was rounded.
    """
    tops, finest = _row_tops(parts[0]), parts[0].exponents
    for part in parts[1:]:
        tops, finest = np.maximum(tops, _row_tops(part)), np.minimum(finest, part.exponents)
    tops = tops + (len(parts) - 1).bit_length()
    if tops.max(initial=SMALLEST_EXPONENT) > LARGEST_EXPONENT:
        raise OutOfRange("a number passes 2**900")
    exponents = np.maximum(np.maximum(tops - bits, finest), SMALLEST_EXPONENT)
    total: Array | None = None
    inexact: Array | None = None
    for part in parts:
        # A clipped shift changes nothing: beyond 60 the row is zero, below -500 each entry is a tiny fraction either way.
        shift = np.minimum(np.maximum(part.exponents - exponents, -500), 60)
        scaled = part.integers * np.ldexp(1.0, shift)
        if (shift < 0).any():
            rounded = rounding(scaled)
            off = rounded != scaled
            if off.any():
                inexact = off.astype(np.float64) if inexact is None else inexact + off
            scaled = rounded
        total = scaled if total is None else total + scaled
    assert total is not None and _largest(total) <= LIMIT, "a sum passes 2**53"
    return Part(total, exponents), inexact


def floats(part: Part) -> Array:
    """A gathered part's numbers as float64, exactly."""
    return np.ldexp(part.integers, part.exponents)


def total(parts: Sequence[Part], rows: int) -> list[Fraction]:
    """The exact sum of one-column parts, a fraction for each row."""
    finest = min((int(part.exponents.min()) for part in parts), default=0)
    sums = np.zeros(rows, dtype=object)
    for part in parts:
        whole = part.integers[:, 0].astype(np.int64).astype(object)
        sums = sums + (whole << (part.exponents[:, 0] - finest).astype(object))
    unit = Fraction(2) ** finest
    return [value * unit for value in sums]


def float_below(value: Fraction) -> float:
    """The largest float64 <= value; OutOfRange past 2**900."""
    if abs(value) > 2**LARGEST_EXPONENT:
        raise OutOfRange("a number passes 2**900")
    return round_down(value)


def float_above(value: Fraction) -> float:
    """The smallest float64 >= value; OutOfRange past 2**900."""
    return -float_below(-value)


def _cut(values: Array, exponents: NDArray[np.int64], rounding: Rounding) -> tuple[Array, Array]:
    """Whole multiples of 2**exponents next to the values, and the exact rest."""
    whole = np.trunc(np.ldexp(values, -exponents))
    rest = values - np.ldexp(whole, exponents)
    if rounding is np.floor:
        return whole - (rest < 0), rest
    if rounding is np.ceil:
        return whole + (rest > 0), rest
    assert rounding is np.trunc
    return whole, rest


def _chunks(integers: Array, width: int) -> list[tuple[Array, int]]:
    """Pieces below 2**width with their shifts: integers = sum of piece * 2**shift."""
    chunks: list[tuple[Array, int]] = []
    rest, shift = integers, 0
    while _largest(rest) >= 2.0**width:
        high = np.trunc(rest * 2.0**-width)
        low = rest - high * 2.0**width
        if low.any():
            chunks.append((low, shift))
        rest, shift = high, shift + width
    return [*chunks, (rest, shift)]


def _row_tops(part: Part) -> NDArray[np.int64]:
    """An exponent t for each row with all its numbers below 2**t; far below everything for a row of zeros."""
    largest = np.maximum(part.integers.max(axis=1, keepdims=True), -part.integers.min(axis=1, keepdims=True))
    return np.where(largest > 0, np.frexp(largest)[1] + part.exponents, 10 * SMALLEST_EXPONENT)


def _entries(matrix: Matrix) -> Array:
    return matrix.data if isinstance(matrix, csr_array) else matrix


def _with_entries(matrix: Matrix, entries: Array) -> Matrix:
    if not isinstance(matrix, csr_array):
        return entries
    result = csr_array((entries, matrix.indices, matrix.indptr), shape=matrix.shape)
    if not entries.all():
        result = result.copy()
        result.eliminate_zeros()
    return result


def _largest(values: Array) -> float:
    return float(max(values.max(), -values.min())) if values.size else 0.0


def _top(values: Array) -> int:
    return math.frexp(_largest(values))[1]


def _trailing_zeros(whole: Array) -> int:
    """The largest z for which 2**z divides every entry."""
    joined = int(np.bitwise_or.reduce(np.abs(whole).astype(np.int64), axis=None))
    return (joined & -joined).bit_length() - 1


def _reach(matrix: Matrix) -> float:
    return float(np.asarray(abs(matrix).sum(axis=0)).max(initial=0.0))
