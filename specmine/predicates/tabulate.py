"""The bits of many predicates on a chunk of samples, by the forms' own definitions, in tiles that stay in the cache."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
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

BLOCK = 256
_TILE = 1 << 17  # numbers of one tile: predicates x samples
_TILE_SAMPLES = 8 * WORD

COMPARISONS: Mapping[str, Callable[..., Any]] = {
    "active": np.greater,
    "inactive": np.less_equal,
    "above": np.greater_equal,
    "below": np.less_equal,
}
"""Forms that compare one neuron with their threshold, or with 0: one call serves all that share the neuron, without a copy."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Predicates of one form and the same sites: their places in the list, sorted by neuron, and their arguments as arrays."""

    places: Rows
    form: str
    arguments: tuple[Any, ...]


def batches_of(predicates: Sequence[Predicate], sites: Sites) -> tuple[Batch, ...]:
    """The batches of a list of valid predicates, at most BLOCK in each."""

    def key(place: int) -> tuple[str, tuple[str, ...]]:
        predicate = predicates[place]
        return predicate.form, form_of(predicate).sites(predicate.arguments, sites)

    grouped = [list(places) for _, places in groupby(sorted(range(len(predicates)), key=key), key=key)]
    return tuple(
        _batch(places[start : start + BLOCK], predicates) for places in grouped for start in range(0, len(places), BLOCK)
    )


def sites_of(predicates: Iterable[Predicate], sites: Sites) -> tuple[str, ...]:
    """The sites that predicates read, sorted."""
    return tuple(sorted({site for p in predicates for site in form_of(p).sites(p.arguments, sites)}))


def tabulate(batches: Sequence[Batch], rows: int, columns: Columns, sites: Sites, samples: int) -> Words:
    """Words (rows, words) of the predicates of batches, whose places are below `rows`, on a chunk of samples.

    columns: values (neurons, samples) by site.
    """
    words = np.empty((rows, word_count(samples)), dtype=np.uint64)
    for batch in batches:
        compare = COMPARISONS.get(batch.form)
        if compare is not None:
            words[batch.places] = pack(_compared(compare, batch, columns, samples))
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


def _batch(places: list[int], predicates: Sequence[Predicate]) -> Batch:
    form = predicates[places[0]].form
    if form in COMPARISONS:
        places = sorted(places, key=lambda place: predicates[place].arguments[1])
    return Batch(np.array(places), form, arguments_of([predicates[place] for place in places]))


def _compared(compare: Callable[..., Any], batch: Batch, columns: Columns, samples: int) -> Bits:
    """Bits (predicates, samples) of a batch that compares each neuron with thresholds, neuron by neuron."""
    site, neurons, *rest = batch.arguments
    thresholds: NDArray[np.float64] = rest[0] if rest else np.zeros(len(neurons))
    values = columns[site]
    made = np.empty((len(neurons), samples), dtype=bool)
    starts = np.flatnonzero(np.diff(neurons, prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(neurons)], strict=True):
        compare(values[neurons[start]], thresholds[start:stop, None], out=made[start:stop])
    return made


def _by_definition(batch: Batch, columns: Columns, sites: Sites, words: Words) -> None:
    form = FORMS[batch.form]
    read = form.sites(_scalars(batch.arguments), sites)
    samples = columns[read[0]].shape[1]
    tile = max(_TILE // len(batch.places) // WORD * WORD, _TILE_SAMPLES)
    for start in range(0, samples, tile):
        part = {site: columns[site][:, start : start + tile] for site in read}
        first = start // WORD
        words[batch.places, first : first + tile // WORD] = pack(form.bits(batch.arguments, part, sites))


def _scalars(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of the first predicate of a batch."""
    return tuple(value.tolist()[0] if isinstance(value, np.ndarray) else value for value in arguments)
