"""Predicates of three neurons: which is the largest, which lies between, and the sum of two against the third.

    largest(s,i,t,j,u,k)      s[i] > t[j] and s[i] > u[k]
    between(s,i,t,j,u,k)      s[i] <= t[j] <= u[k]
    sum_over(s,i,t,j,u,k,c)   s[i] + t[j] >= u[k] + c
    sum_under(s,i,t,j,u,k,c)  s[i] + t[j] <= u[k] + c

Candidates join the partners of one neuron two by two, so there is at most half a triple for each pair.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np

from specmine.predicates.combination import combination, tails, terms
from specmine.predicates.exact import Truth, distinct, sums_at_least, sums_at_most
from specmine.predicates.form import Bits, Columns, Family, Form, Measure, Pairs, Plan, Rows, Spread
from specmine.predicates.predicate import Argument, Predicate
from specmine.tracing.sites import Sites
from verifier.formula import And, Formula
from verifier.ops import Array


def _ends(arguments: tuple[Argument, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((str(arguments[place]), int(arguments[place + 1])) for place in (0, 2, 4))


def _largest(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    first, *others = _ends(arguments)
    return And(tuple(combination([(1, *other), (-1, *first)], sites) for other in others))


def _between(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    low, middle, high = _ends(arguments)
    steps = ((low, middle), (middle, high))
    return And(tuple(combination([(1, *a), (-1, *b)], sites, most=0) for a, b in steps))


def _sum_over(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    first, second, third = _ends(arguments)
    return combination([(1, *first), (1, *second), (-1, *third)], sites, least=float(arguments[6]))


def _sum_under(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    first, second, third = _ends(arguments)
    return combination([(1, *first), (1, *second), (-1, *third)], sites, most=float(arguments[6]))


def _largest_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    first, i, second, j, third, k = arguments
    largest = columns[first][i]
    return (columns[second][j] < largest) & (columns[third][k] < largest)


def _between_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    first, i, second, j, third, k = arguments
    middle = columns[second][j]
    return (columns[first][i] <= middle) & (middle <= columns[third][k])


def _sum_bits(
    compared: Callable[..., Truth],
    arguments: tuple[Any, ...],
    columns: Columns,
    sites: Sites,
) -> Bits:
    first, i, second, j, third, k, thresholds = arguments
    (i, j, k), which = distinct(i, j, k)
    return compared(terms(columns, [(1, first, i), (1, second, j), (-1, third, k)]), which, thresholds)


def _sites(arguments: tuple[Argument, ...], sites: Sites) -> tuple[str, ...]:
    return tuple(site for site, _ in _ends(arguments))


_TRIPLE: tuple[Any, ...] = ("site", "neuron", "site", "neuron", "site", "neuron")

FORMS: dict[str, Form] = {
    "largest": Form("largest", _TRIPLE, _largest, _largest_bits, _sites),
    "between": Form("between", _TRIPLE, _between, _between_bits, _sites),
    "sum_over": Form("sum_over", (*_TRIPLE, "threshold"), _sum_over, partial(_sum_bits, sums_at_least), _sites),
    "sum_under": Form("sum_under", (*_TRIPLE, "threshold"), _sum_under, partial(_sum_bits, sums_at_most), _sites),
}


@dataclass(frozen=True, eq=False)
class Triples:
    """Triples of neurons (triples, 3), each of the site that stands at the same place."""

    sites: tuple[str, str, str]
    neurons: Rows


def triples_of(pairs: Pairs) -> Triples:
    """Each neuron with its first and second partner, its third and fourth, and so on.

    >>> pairs = Pairs("layer", "h", np.array([4, 4, 4, 5]), "h", np.array([7, 8, 9, 4]))
    >>> triples_of(pairs).neurons.tolist()
    [[4, 7, 8]]
    """
    first = np.ones(len(pairs.i), dtype=bool)
    first[1:] = pairs.i[1:] != pairs.i[:-1]
    start = np.maximum.accumulate(np.where(first, np.arange(len(pairs.i)), 0))
    ahead = np.flatnonzero(((np.arange(len(pairs.i)) - start) % 2 == 0)[:-1] & ~first[1:])
    neurons = np.stack([pairs.i[ahead], pairs.j[ahead], pairs.j[ahead + 1]], axis=1)
    return Triples((pairs.first, pairs.second, pairs.second), neurons)


def _measures(plan: Plan) -> tuple[Measure, ...]:
    """For each triple and each of its neurons the sum of the other two less that one."""
    return tuple(
        Measure(triples.sites, len(triples.neurons), partial(_values, triples, third))
        for triples in map(triples_of, plan.pairs)
        for third in range(3)
    )


def _values(triples: Triples, third: int, columns: Columns, rows: slice) -> Array:
    parts = [columns[site][triples.neurons[rows, place]] for place, site in enumerate(triples.sites)]
    one, other = (part for place, part in enumerate(parts) if place != third)
    return one + other - parts[third]


def _candidates(plan: Plan, spreads: tuple[Spread, ...]) -> Iterator[Predicate]:
    for number, triples in enumerate(map(triples_of, plan.pairs)):
        for row, neurons in enumerate(triples.neurons.tolist()):
            ends = tuple(zip(triples.sites, neurons, strict=True))
            yield from _orders(ends)
            for third in range(3):
                low, high = tails(spreads[3 * number + third], row, plan.grid, share=4)
                one, other = (end for place, end in enumerate(ends) if place != third)
                triple = (*one, *other, *ends[third])
                yield from (Predicate("sum_over", (*triple, threshold)) for threshold in low)
                yield from (Predicate("sum_under", (*triple, threshold)) for threshold in high)


def _orders(ends: tuple[tuple[str, int], ...]) -> Iterator[Predicate]:
    for place, (site, neuron) in enumerate(ends):
        others = (end for other, end in enumerate(ends) if other != place)
        yield Predicate("largest", (site, neuron, *(part for end in others for part in end)))
    for order in permutations(ends):
        yield Predicate("between", tuple(part for end in order for part in end))


TERNARY = Family("ternary", FORMS, _candidates, _measures, paired=True)
