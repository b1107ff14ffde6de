"""The bits of many predicates on a chunk of samples, by the forms' own definitions, in tiles that stay in the cache."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.families import FORMS, arguments_of, form_of
from specmine.predicates.form import Bits, Columns, Rows
from specmine.predicates.predicate import Predicate
from specmine.predicates.words import WORD, Words, pack, word_count
from specmine.tracing.sites import Sites
from specmine.tracing.trace import Trace, column
from verifier.ops import Array

_BLOCK = 256
_SMALL_BLOCK = 64  # of forms without thresholds, which share no intermediate results
_TILE_SAMPLES = 8 * WORD

COMPARISONS: Mapping[str, Callable[..., Any]] = {
    "active": np.greater,
    "inactive": np.less_equal,
    "above": np.greater_equal,
    "below": np.less_equal,
}
"""Forms that compare one neuron with their threshold, or with 0: one call serves all that share the neuron, without a copy."""

PAIRWISE: Mapping[str, Callable[..., Any]] = {"less": np.less}
"""Forms that compare two neurons: one call each, without a copy."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Predicates of one form and the same sites: their places in the list, and their arguments as arrays."""

    places: Rows
    form: str
    sites: tuple[str, ...]
    arguments: tuple[Any, ...]


def batches_of(predicates: Sequence[Predicate], sites: Sites) -> tuple[Batch, ...]:
    """The batches of a list of valid predicates, a few hundred at most in each."""

    grouped: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for place, predicate in enumerate(predicates):
        grouped.setdefault((predicate.form, form_of(predicate).sites(predicate.arguments, sites)), []).append(place)
    return tuple(
        _batch(form, read, places[start : start + size], predicates)
        for (form, read), places in grouped.items()
        for size in [_block_of(form)]
        for start in range(0, len(places), size)
    )


def sites_of(batches: Iterable[Batch]) -> tuple[str, ...]:
    """The sites that batches read, sorted."""
    return tuple(sorted({site for batch in batches for site in batch.sites}))


def tabulate(batches: Sequence[Batch], rows: int, columns: Columns, sites: Sites, samples: int) -> Words:
    """Words (rows, words) of the predicates of batches, whose places are below `rows`, on a chunk of samples.

    columns: values (neurons, samples) by site.
    """
    words = np.empty((rows, word_count(samples)), dtype=np.uint64)
    made = np.empty((_BLOCK, samples), dtype=bool)  # used over and over, so that it stays in the cache
    for batch in batches:
        if batch.form in COMPARISONS:
            words[batch.places] = pack(_compared(batch, columns, made))
        elif batch.form in PAIRWISE:
            words[batch.places] = pack(_paired(batch, columns, made))
        else:
            _by_definition(batch, columns, sites, words)
    return words


class Turned(dict[str, Array]):
    """Values (neurons, samples) of a trace by site, turned when first asked for; raises BadClause for a site not kept."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __missing__(self, site: str) -> Array:
        self[site] = np.ascontiguousarray(column(self.trace, site).T)
        return self[site]


def _block_of(form: str) -> int:
    shared = form in COMPARISONS or form in PAIRWISE or "threshold" in FORMS[form].signature
    return _BLOCK if shared else _SMALL_BLOCK


def _batch(form: str, sites: tuple[str, ...], places: list[int], predicates: Sequence[Predicate]) -> Batch:
    if form in COMPARISONS:
        places = sorted(places, key=lambda place: predicates[place].arguments[1])
    return Batch(np.array(places), form, sites, arguments_of([predicates[place] for place in places]))


def _compared(batch: Batch, columns: Columns, made: Bits) -> Bits:
    """Bits (predicates, samples) of a batch that compares each neuron with thresholds, neuron by neuron, made in place."""
    compare = COMPARISONS[batch.form]
    site, neurons, *rest = batch.arguments
    thresholds: NDArray[np.float64] = rest[0] if rest else np.zeros(len(neurons))
    values = columns[site]
    cuts = [0, *(np.flatnonzero(neurons[1:] != neurons[:-1]) + 1).tolist(), len(neurons)]
    for start, stop in pairwise(cuts):
        compare(values[neurons[start]], thresholds[start:stop, None], out=made[start:stop])
    return made[: len(neurons)]


def _paired(batch: Batch, columns: Columns, made: Bits) -> Bits:
    """Bits (predicates, samples) of a batch that compares pairs of neurons, made in place."""
    compare = PAIRWISE[batch.form]
    first, i, second, j = batch.arguments
    for left, right, into in zip(i.tolist(), j.tolist(), made[: len(i)], strict=True):
        compare(columns[first][left], columns[second][right], out=into)
    return made[: len(i)]


def _by_definition(batch: Batch, columns: Columns, sites: Sites, words: Words) -> None:
    form = FORMS[batch.form]
    samples = columns[batch.sites[0]].shape[1]
    for start in range(0, samples, _TILE_SAMPLES):
        part = {site: columns[site][:, start : start + _TILE_SAMPLES] for site in batch.sites}
        first = start // WORD
        words[batch.places, first : first + _TILE_SAMPLES // WORD] = pack(form.bits(batch.arguments, part, sites))
