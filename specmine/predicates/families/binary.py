"""Predicates of two neurons: less(site, i, site, j), the value of the first is below that of the second.

Candidates compare the pairs that locality allows. A clause written by hand may compare any two neurons of any two sites.
"""

from collections.abc import Iterator
from typing import Any

from specmine.predicates.form import Bits, Columns, Family, Form, Plan, Spread
from specmine.predicates.predicate import Argument, Predicate
from specmine.tracing.sites import Sites
from verifier.formula import Formula, atom


def _denote(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    first, i, second, j = arguments
    left, right = (sites.value(str(first)), int(i)), (sites.value(str(second)), int(j))
    # A neuron is never less than itself: 0 < 0.
    return atom({} if left == right else {left: 1, right: -1}, 0, strict=True)


def _bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    first, i, second, j = arguments
    return columns[first][i] < columns[second][j]


def _sites(arguments: tuple[Argument, ...], sites: Sites) -> tuple[str, ...]:
    return (str(arguments[0]), str(arguments[2]))


LESS = Form("less", ("site", "neuron", "site", "neuron"), _denote, _bits, _sites)


def _candidates(plan: Plan, spreads: tuple[Spread, ...]) -> Iterator[Predicate]:
    for pairs in plan.pairs:
        for i, j in zip(pairs.i.tolist(), pairs.j.tolist(), strict=True):
            yield Predicate("less", (pairs.first, i, pairs.second, j))
            yield Predicate("less", (pairs.second, j, pairs.first, i))


BINARY = Family("binary", {"less": LESS}, _candidates, paired=True)
