"""Products by digits against Python's own whole numbers."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.sparse import csr_array

from verifier.check import whole
from verifier.check.whole import BITS, digits_of, product


def exact(matrix: np.ndarray, vector: list[int]) -> list[Fraction]:
    return [sum((Fraction(w) * v for w, v in zip(row, vector, strict=True)), Fraction(0)) for row in matrix.tolist()]


@pytest.mark.parametrize("seed", range(60))
def test_products_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = (int(n) for n in rng.integers(1, 40, size=2))
    matrix = rng.normal(size=(rows, columns)) * 2.0 ** rng.integers(-30, 30, size=(rows, columns))
    matrix *= 2.0 ** int(rng.choice([0, -1000, 900]))
    matrix[rng.random(matrix.shape) < 0.3] = 0.0
    bits = int(rng.choice([1, 15, 16, 17, 60, 300]))
    vector = [int(rng.integers(-1, 2)) * ((1 << bits) - int(rng.integers(0, 3))) for _ in range(columns)]
    for given in (matrix, csr_array(matrix)):
        digits = digits_of(given)
        assert digits is not None
        if digits.parts:
            found = product(digits, np.array(vector, dtype=object))
            assert [Fraction(n) * Fraction(2) ** (BITS * digits.lowest) for n in found] == exact(matrix, vector)


def test_largest_digits_in_the_most_terms() -> None:
    columns = 2**15
    matrix = np.full((1, columns), -(2.0**16 - 2.0**-37))
    vector = [2**160 - 1] * columns
    digits = digits_of(matrix)
    assert digits is not None
    (found,) = product(digits, np.array(vector, dtype=object))
    assert Fraction(found) * Fraction(2) ** (BITS * digits.lowest) == Fraction(matrix[0, 0]) * vector[0] * columns


def test_matrices_that_digits_do_not_suit() -> None:
    spread = 2.0 ** np.linspace(-1000, 1000, 60)[None, :]
    assert digits_of(spread) is None
    assert digits_of(np.full((1, 2**21 + 2**10), 2.0**16 - 1)) is None


def test_a_carry_forgotten_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = whole._joined
    monkeypatch.setattr(whole, "_joined", lambda sums: joined(sums & (2**BITS - 1)))
    digits = digits_of(np.ones((1, 4)))
    assert digits is not None
    assert product(digits, np.array([2**16 - 1] * 4, dtype=object)).tolist() != [4 * (2**16 - 1)]
