"""Predicates of two neurons: less(site, i, site, j), the value of the first is below that of the second.

Candidates stay linear in the neurons: both neurons are of one site, and each neuron keeps its PARTNERS most telling partners
out of a random few (METHODS 1, locality). A clause written by hand may compare any two neurons of any two sites.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.form import Bits, Columns, Family, Form, Grid
from specmine.predicates.predicate import Argument, Predicate
from specmine.tracing.sites import Sites
from specmine.tracing.trace import Trace, column
from verifier.formula import Formula, atom
from verifier.ops import Array

PARTNERS = 8
SCREENED = 4 * PARTNERS


def _denote(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    first, i, second, j = arguments
    left, right = (sites.value(str(first)), int(i)), (sites.value(str(second)), int(j))
    # A neuron is never less than itself: 0 < 0.
    return atom({} if left == right else {left: 1, right: -1}, 0, strict=True)


def _bits(arguments: tuple[Any, ...], columns: Columns) -> Bits:
    first, i, second, j = arguments
    return columns[first][i] < columns[second][j]


def _sites(arguments: tuple[Argument, ...]) -> tuple[str, ...]:
    return (str(arguments[0]), str(arguments[2]))


LESS = Form("less", ("site", "neuron", "site", "neuron"), _denote, _bits, _sites)


def _candidates(trace: Trace, grid: Grid) -> Iterator[Predicate]:
    for site in grid.sites:
        values = column(trace, site)
        for i, partners in enumerate(_partners(values, grid.heads)):
            for j in partners.tolist():
                yield Predicate("less", (site, i, site, j))
                yield Predicate("less", (site, j, site, i))


def _partners(values: Array, heads: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """For each neuron the partners whose difference from it separates some class best from the rest."""
    neurons = values.shape[1]
    labels = np.unique(heads[heads >= 0])
    if neurons < 2 or not len(labels):
        return
    means = np.stack([values[heads == label].mean(axis=0) for label in labels])
    variances = np.stack([values[heads == label].var(axis=0) for label in labels]).mean(axis=0)
    generator = np.random.default_rng(neurons)
    for i in range(neurons):
        pool = generator.choice(neurons - 1, size=min(SCREENED, neurons - 1), replace=False)
        pool = np.sort(pool + (pool >= i))
        difference = means[:, pool] - means[:, i : i + 1]
        spread = np.sqrt(variances[pool] + variances[i]) + 1e-12
        score = np.abs(difference - difference.mean(axis=0)).max(axis=0) / spread
        yield np.sort(pool[np.argsort(-score, kind="stable")[:PARTNERS]])


BINARY = Family("binary", {"less": LESS}, _candidates)
