"""Linear combinations of neurons: the atom that one denotes, its terms on samples, and the thresholds it is given."""

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

from specmine.predicates.form import Columns, Grid, Rows, Spread
from specmine.predicates.rounding import few_thresholds
from specmine.tracing.sites import Sites
from verifier.formula import Atom, atom
from verifier.ops import Array

End: TypeAlias = tuple[int, str, int]
"""A coefficient, a site, a neuron."""


def combination(ends: Sequence[End], sites: Sites, *, least: float | None = None, most: float | None = None) -> Atom:
    """sum >= least, or sum <= most; sum < 0 with neither. A neuron named twice counts with the sum of its coefficients."""
    sign = 1 if least is None else -1
    total: dict[tuple[str, int], int] = {}
    for coefficient, site, neuron in ends:
        key = (sites.value(site), neuron)
        total[key] = total.get(key, 0) + sign * coefficient
    bound = most if least is None else least
    return atom(total, 0 if bound is None else -sign * Fraction(bound), strict=bound is None)


def terms(columns: Columns, ends: Sequence[tuple[int, str, Rows]]) -> list[Array]:
    """The terms of combinations with coefficients 1 and -1 on samples, each of shape (combinations, samples)."""
    values = [columns[site][neurons] for _, site, neurons in ends]
    return [value if sign > 0 else -value for value, (sign, _, _) in zip(values, ends, strict=True)]


def tails(spread: Spread, row: int, grid: Grid, share: int) -> tuple[list[float], list[float]]:
    """Thresholds to be above and to be below of one row of a measure of several neurons.

    Each neuron stands in many measures, so each gets but a part of the domain size, the part's inverse in `share`.
    """
    if spread.low[0, row] == spread.high[0, row]:
        return [], []
    most = max(1, grid.thresholds // share)
    low, high = spread.low[1:, row], spread.high[1:, row]
    return few_thresholds(low, most, down=True), few_thresholds(high, most, down=False)
