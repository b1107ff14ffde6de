"""Which literals no smallest body needs, because one on the same quantity says more and loses no positive.

sound: where a literal implies another and holds on the same positives, a body with the first in place of the second has no more
literals, keeps the same positives, and holds nowhere else; so whatever refuses it, seen or unseen, refuses the other too.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.predicate import Predicate
from specmine.predicates.table import Words
from specmine.rules.reduce import Limits, implies, limits_of

Quantity = tuple[object, ...]


def quantity_limits(literal: Predicate) -> tuple[Quantity, Limits] | None:
    """A quantity, and the limits that a literal puts on it; None for a form that is not about a single quantity.

    >>> quantity_limits(Predicate("less_by", ("h1", 4, "h1", 2, 0.5)))
    (('difference', 'h1', 4, 'h1', 2), Limits(lower=0.5, strict=False, upper=inf))
    """
    own = limits_of(literal)
    if own is not None:
        return ("neuron", *literal.arguments[:2]), own
    match literal:
        case Predicate("less", (first, i, second, j)):
            return _difference((first, i), (second, j), 0.0, strict=True)
        case Predicate("less_by", (first, i, second, j, gap)):
            return _difference((first, i), (second, j), float(gap), strict=False)
        case Predicate("sum_above" | "sum_over", (*ends, threshold)):
            return (_SUMS[literal.form], *ends), Limits(lower=float(threshold))
        case Predicate("sum_below" | "sum_under", (*ends, threshold)):
            return (_SUMS[literal.form], *ends), Limits(upper=float(threshold))
    return None


_SUMS = {"sum_above": "sum", "sum_below": "sum", "sum_over": "excess", "sum_under": "excess"}


def _difference(
    first: tuple[object, object], second: tuple[object, object], gap: float, *, strict: bool
) -> tuple[Quantity, Limits] | None:
    """second - first >= gap (> where strict), always written for the pair in one order."""
    if repr(first) > repr(second):
        return ("difference", *first, *second), Limits(lower=gap, strict=strict)
    if strict:
        return None  # an upper limit has no strict kind
    return ("difference", *second, *first), Limits(upper=0.0 - gap)


def dominated(
    predicates: Sequence[Predicate], held: Words, rows: NDArray[np.int64], *, spared: Iterable[int] = ()
) -> NDArray[np.bool_]:
    """Which of the rows (rows,) another of them dominates; of two that dominate each other the first stays.

    held: (predicates, words), the truth of each row on the positives alone. spared: rows that dominate none.
    """
    out = np.zeros(len(rows), dtype=bool)
    weak = set(spared)
    groups: dict[tuple[Quantity, bytes], list[tuple[int, Limits]]] = {}
    for place, row in enumerate(rows.tolist()):
        found = quantity_limits(predicates[row])
        if found is not None:
            groups.setdefault((found[0], held[row].tobytes()), []).append((place, found[1]))
    for members in groups.values():
        for place, limits in members:
            rivals = ((other, own) for other, own in members if other != place and int(rows[other]) not in weak)
            out[place] = any(implies(own, limits) and (other < place or not implies(limits, own)) for other, own in rivals)
    return out


def strongest_of(predicates: Sequence[Predicate], rows: Sequence[int]) -> tuple[int, ...]:
    """The rows, in their order, without those that another one of the same quantity implies."""
    kept: dict[Quantity, list[tuple[int, Limits]]] = {}
    gone: set[int] = set()
    for row in rows:
        found = quantity_limits(predicates[row])
        if found is None:
            continue
        rivals = kept.setdefault(found[0], [])
        if any(implies(limits, found[1]) for _, limits in rivals):
            gone.add(row)
            continue
        gone |= {other for other, limits in rivals if implies(found[1], limits)}
        rivals[:] = [(other, limits) for other, limits in rivals if other not in gone] + [(row, found[1])]
    return tuple(row for row in rows if row not in gone)
