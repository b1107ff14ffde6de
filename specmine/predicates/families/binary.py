"""Predicates of two neurons, octagons: which is below the other, by how much, and how large their sum is.

    less(s,i,t,j)          s[i] < t[j]
    less_by(s,i,t,j,c)     t[j] - s[i] >= c
    sum_above(s,i,t,j,c)   s[i] + t[j] >= c
    sum_below(s,i,t,j,c)   s[i] + t[j] <= c

Candidates compare the pairs that locality allows. A clause written by hand may compare any two neurons of any two sites.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from specmine.predicates.combination import combination, tails, terms
from specmine.predicates.exact import Truth, distinct, sums_at_least, sums_at_most
from specmine.predicates.form import Bits, Columns, Family, Form, Measure, Pairs, Plan, Spread
from specmine.predicates.predicate import Argument, Predicate
from specmine.tracing.sites import Sites
from verifier.formula import Formula
from verifier.ops import Array


def _less(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    first, i, second, j = arguments
    return combination([(1, str(first), int(i)), (-1, str(second), int(j))], sites)


def _less_by(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    first, i, second, j, gap = arguments
    return combination([(-1, str(first), int(i)), (1, str(second), int(j))], sites, least=float(gap))


def _sum_above(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    first, i, second, j, threshold = arguments
    return combination([(1, str(first), int(i)), (1, str(second), int(j))], sites, least=float(threshold))


def _sum_below(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    first, i, second, j, threshold = arguments
    return combination([(1, str(first), int(i)), (1, str(second), int(j))], sites, most=float(threshold))


def _less_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    first, i, second, j = arguments
    return columns[first][i] < columns[second][j]


def _bits(
    sign: int,
    compared: Callable[..., Truth],
    arguments: tuple[Any, ...],
    columns: Columns,
    sites: Sites,
) -> Bits:
    """Truth of second + sign * first against thresholds, each pair summed once."""
    first, i, second, j, thresholds = arguments
    (i, j), which = distinct(i, j)
    return compared(terms(columns, [(1, second, j), (sign, first, i)]), which, thresholds)


def _sites(arguments: tuple[Argument, ...], sites: Sites) -> tuple[str, ...]:
    return (str(arguments[0]), str(arguments[2]))


_PAIR: tuple[Any, ...] = ("site", "neuron", "site", "neuron")

FORMS: dict[str, Form] = {
    "less": Form("less", _PAIR, _less, _less_bits, _sites),
    "less_by": Form("less_by", (*_PAIR, "threshold"), _less_by, partial(_bits, -1, sums_at_least), _sites),
    "sum_above": Form("sum_above", (*_PAIR, "threshold"), _sum_above, partial(_bits, 1, sums_at_least), _sites),
    "sum_below": Form("sum_below", (*_PAIR, "threshold"), _sum_below, partial(_bits, 1, sums_at_most), _sites),
}


def _measures(plan: Plan) -> tuple[Measure, ...]:
    """The difference and the sum of each pair."""
    return tuple(
        Measure((pairs.first, pairs.second), len(pairs.i), partial(_values, pairs, sign))
        for pairs in plan.pairs
        for sign in (-1, 1)
    )


def _values(pairs: Pairs, sign: int, columns: Columns, rows: slice) -> Array:
    return columns[pairs.second][pairs.j[rows]] + sign * columns[pairs.first][pairs.i[rows]]


def _candidates(plan: Plan, spreads: tuple[Spread, ...]) -> Iterator[Predicate]:
    for pairs, differences, sums in zip(plan.pairs, spreads[::2], spreads[1::2], strict=True):
        for row, (i, j) in enumerate(zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)):
            pair, turned = (pairs.first, i, pairs.second, j), (pairs.second, j, pairs.first, i)
            yield Predicate("less", pair)
            yield Predicate("less", turned)
            low, high = tails(differences, row, plan.grid, share=2)
            yield from (Predicate("less_by", (*pair, gap)) for gap in low)
            yield from (Predicate("less_by", (*turned, 0.0 - gap)) for gap in high)
            low, high = tails(sums, row, plan.grid, share=2)
            yield from (Predicate("sum_above", (*pair, threshold)) for threshold in low)
            yield from (Predicate("sum_below", (*pair, threshold)) for threshold in high)


BINARY = Family("binary", FORMS, _candidates, _measures, paired=True)
