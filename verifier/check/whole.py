"""Products of matrices of float64 with vectors of whole numbers of any length, exactly, by float64 hardware.

Both are cut into digits of 16 bits. A product of matrices of digits is a sum of fewer than 2**21 terms below 2**32, so that no
partial sum of it, in whatever order the hardware adds, passes 2**53: it is exact. Carries are moved afterwards.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from verifier.check.exact import LIMIT, Matrix

BITS = 16
MOST_DIGITS = 16
SPARE = 4
"""Digits that a sum of fewer than 2**58 may fill beyond its own."""


@dataclass(frozen=True, eq=False)
class Digits:
    """A matrix as the sum of parts[k] * 2**(16 * places[k]), parts of whole numbers of magnitude at most 2**16."""

    parts: tuple[Matrix, ...]
    places: tuple[int, ...]

    @property
    def lowest(self) -> int:
        return min(self.places, default=0)


def digits_of(matrix: Matrix) -> Digits | None:
    """The matrix in digits; None for one of so wide a range or so many columns that this is no way to multiply it."""
    rest = (matrix.data if isinstance(matrix, csr_array) else matrix).copy()
    parts: list[Matrix] = []
    places: list[int] = []
    while rest.any():
        if len(parts) == MOST_DIGITS:
            return None
        place = -(-int(np.frexp(np.abs(rest).max())[1]) // BITS) - 1
        # sound: a float's leading bits are a float, and so are those left over; nothing is rounded.
        digit = np.trunc(np.ldexp(rest, -BITS * place))
        rest -= np.ldexp(digit, BITS * place)
        part = _with_entries(matrix, digit)
        if float(np.asarray(abs(part).sum(axis=1)).max(initial=0.0)) * 2.0**BITS > LIMIT:
            return None
        parts.append(part)
        places.append(place)
    return Digits(tuple(parts), tuple(places))


def _with_entries(matrix: Matrix, entries: NDArray[np.float64]) -> Matrix:
    if isinstance(matrix, csr_array):
        return csr_array((entries, matrix.indices, matrix.indptr), shape=matrix.shape)
    return entries


def product(matrix: Digits, vector: NDArray[np.object_]) -> NDArray[np.object_]:
    """The matrix times Python integers, over 2**(16 * matrix.lowest)."""
    rows = 0 if not matrix.parts else matrix.parts[0].shape[0]
    columns = _digits(vector)
    highest = max(matrix.places, default=0) - matrix.lowest
    sums = np.zeros((rows, columns.shape[1] + highest + SPARE), dtype=np.int64)
    for part, place in zip(matrix.parts, matrix.places, strict=True):
        first = place - matrix.lowest
        sums[:, first : first + columns.shape[1]] += np.asarray(part @ columns).astype(np.int64)
    return _joined(sums)


def _digits(vector: NDArray[np.object_]) -> NDArray[np.float64]:
    """Python integers in digits, the lowest first: (entries, digits); the last is signed, the others are not negative."""
    numbers = vector.tolist()
    count = max((int(n).bit_length() for n in numbers), default=0) // BITS + 1
    raw = b"".join(int(n).to_bytes(2 * count, "little", signed=True) for n in numbers)
    found = np.frombuffer(raw, dtype="<u2").reshape(len(numbers), count).astype(np.float64)
    found[:, -1] -= np.where(found[:, -1] >= 2 ** (BITS - 1), 2.0**BITS, 0.0)
    return found


def _joined(sums: NDArray[np.int64]) -> NDArray[np.object_]:
    """Python integers from sums of digits below 2**58, the lowest first."""
    for k in range(sums.shape[1] - 1):
        sums[:, k + 1] += sums[:, k] >> BITS
        sums[:, k] &= 2**BITS - 1
    assert ((sums[:, -1] == 0) | (sums[:, -1] == -1)).all(), "a sum of digits overflowed"
    rows = (sums & (2**BITS - 1)).astype("<u2")
    result = np.empty(len(rows), dtype=object)
    result[:] = [int.from_bytes(row.tobytes(), "little", signed=True) for row in rows]
    return result
