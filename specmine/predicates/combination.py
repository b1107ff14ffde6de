"""Linear combinations of neurons: the atom that one denotes, its terms on samples, and the thresholds it is given."""

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from specmine.predicates.form import Columns, Grid, Rows, Spread
from specmine.predicates.rounding import short_thresholds
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

    Each neuron stands in many measures, so each gets but a part of the domain size, 1 / share of it: the thresholds that
    part the most head values from each other, evenly spaced among equals. None that holds on all samples.
    """
    least, greatest = spread.low[0, row], spread.high[0, row]
    if least == greatest:
        return [], []
    low, high = spread.low[1:, row], spread.high[1:, row]
    heads_low, heads_high = (_of_heads(ends, grid) for ends in (low, high))
    above = np.array([t for t in short_thresholds(low, down=True) if t > least])
    below = np.array([t for t in short_thresholds(high, down=False) if t < greatest])
    parted_above = (heads_low[:, None] >= above).sum(axis=0) * (heads_high[:, None] < above).sum(axis=0)
    parted_below = (heads_high[:, None] <= below).sum(axis=0) * (heads_low[:, None] > below).sum(axis=0)
    most = max(1, grid.thresholds // share)
    return telling(above, parted_above, most), telling(below, parted_below, most)


def _of_heads(ends: Array, grid: Grid) -> Array:
    """The loosest end of each head value, from the ends of a spread without its range."""
    levels = len(grid.head_levels)
    return ends[grid.thresholds + int(np.argmax(grid.head_levels)) :: levels] if levels else ends[:0]


def telling(thresholds: Array, parted: Rows, most: int) -> list[float]:
    """At most so many of ascending thresholds, in order: those that part the most, evenly spaced among equals.

    >>> telling(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0, 9, 0, 0, 0]), 3)
    [1.0, 2.0, 5.0]
    """
    chosen: list[float] = []
    for value in sorted(set(parted.tolist()), reverse=True):
        equals = thresholds[parted == value].tolist()
        room = min(most - len(chosen), len(equals))
        chosen += [equals[place * (len(equals) - 1) // max(1, room - 1)] for place in range(room)]
    return sorted(chosen)
