"""Which of the allowed pairs are kept: for each neuron its most telling partners, from one pass over the samples.

Within a layer or a window those whose difference tells head values apart best, from running first and second moments;
between layers those with the largest weights. Neurons that never change have no partner.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from specmine.predicates.edges import SparseRows
from specmine.predicates.form import Bits, Grid, Pairs, Rows
from specmine.predicates.locality import Locality, Shifts
from specmine.tracing.stream import MEMORY_MB, Source, chunk_for, run_chunks, traced
from verifier.ops import Array

POOL = 4
"""How many partners are screened for each that is kept."""

_CACHED = 1 << 17


@dataclass(frozen=True, eq=False)
class Moments:
    """What screening keeps of samples.

    counts: (heads,) samples of each head value. least, greatest: (neurons,) by site. means: (heads, neurons) by site, 0 for
    a head value without samples. scatter: (shifts, neurons) by site, the squared deviations of each pair's difference from
    its mean over the samples of the same head value, summed over all of them.
    """

    counts: Rows
    least: Mapping[str, Array]
    greatest: Mapping[str, Array]
    means: Mapping[str, Array]
    scatter: Mapping[str, Array]


def moments(part: Source, rows: slice, heads: Rows, *, labels: Rows, sites: Sequence[str], within: Sequence[Shifts]) -> Moments:
    """The moments of a range of samples. heads: (samples,), of which those in `labels`, ascending, count."""
    values = traced(part, sites).values
    counts = np.array([(heads == label).sum() for label in labels], dtype=np.int64)
    kept = np.isin(heads, labels)
    places = np.searchsorted(labels, heads[kept])
    means, scatter = {}, {}
    for shifts in within:
        of_head = values[shifts.site][kept]
        means[shifts.site] = _head_means(of_head, places, counts)
        scatter[shifts.site] = _scatter(of_head, means[shifts.site], places, shifts.shifts)
    least = {site: values[site].min(axis=0) for site in sites}
    greatest = {site: values[site].max(axis=0) for site in sites}
    return Moments(counts, least, greatest, means, scatter)


def merge(first: Moments, second: Moments, within: Sequence[Shifts]) -> Moments:
    """The moments of the samples of both (Chan, Golub and LeVeque 1983)."""
    counts = first.counts + second.counts
    share = second.counts / np.maximum(counts, 1)
    means, scatter = {}, {}
    for shifts in within:
        site = shifts.site
        gap = second.means[site] - first.means[site]
        means[site] = first.means[site] + share[:, None] * gap
        scatter[site] = first.scatter[site] + second.scatter[site]
        for m, shift in enumerate(shifts.shifts):
            scatter[site][m] += (first.counts * share) @ _differences(gap, shift) ** 2
    least = {site: np.minimum(low, second.least[site]) for site, low in first.least.items()}
    greatest = {site: np.maximum(high, second.greatest[site]) for site, high in first.greatest.items()}
    return Moments(counts, least, greatest, means, scatter)


def choose_pairs(
    source: Source, grid: Grid, heads: Rows, *, executor: Executor | None = None, memory_mb: float = MEMORY_MB
) -> tuple[Pairs, ...]:
    """The kept pairs of the grid's sites: those within sites in the grid's order, then those between.

    heads: (samples,) a head value for each sample, -1 for none. At most `grid.partners` partners are chosen for a neuron,
    a quarter of them in the layer below where it has one.
    """
    locality = Locality(source.sites, grid.locality)
    sites = tuple(dict.fromkeys(grid.sites))
    found = [locality.within(site, POOL * grid.partners) for site in sites]
    within = [shifts for shifts in found if shifts is not None]
    work = partial(moments, labels=np.unique(heads[heads >= 0]), sites=sites, within=within)
    chunk = chunk_for(source, sites, memory_mb)
    parts = (part for _, part in run_chunks(executor, work, source, chunk=chunk, aligned=[heads]))
    seen = reduce(partial(merge, within=within), parts)
    varying = {site: seen.least[site] < seen.greatest[site] for site in sites}
    between = [pairs for site in sites for pairs in _between(locality, site, sites, varying, grid.partners)]
    reading = {pairs.first for pairs in between}
    share = {site: grid.partners - (_below_share(grid.partners) if site in reading else 0) for site in sites}
    own = [_within(shifts, seen, varying[shifts.site], share[shifts.site]) for shifts in within]
    return (*(pairs for pairs in own if len(pairs.i)), *between)


def _head_means(values: Array, places: Rows, counts: Rows) -> Array:
    means = np.zeros((len(counts), values.shape[1]))
    for head in np.flatnonzero(counts):
        means[head] = values[places == head].mean(axis=0)
    return means


def _scatter(values: Array, means: Array, places: Rows, shifts: Rows) -> Array:
    """(shifts, neurons): sum over the samples of the squared centered difference of each pair."""
    neurons = values.shape[1]
    squares, products = np.zeros(neurons), np.zeros((len(shifts), neurons))
    step = max(64, _CACHED // max(neurons, 1))
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        centered = np.ascontiguousarray((values[rows] - means[places[rows]]).T)
        squares += np.einsum("ns,ns->n", centered, centered)
        for total, shift in zip(products, shifts % neurons, strict=True):
            total[: neurons - shift] += np.einsum("ns,ns->n", centered[shift:], centered[: neurons - shift])
            total[neurons - shift :] += np.einsum("ns,ns->n", centered[:shift], centered[neurons - shift :])
    partners = np.stack([np.roll(squares, -shift) for shift in shifts])
    return np.maximum(squares + partners - 2 * products, 0)


def _differences(values: Array, shift: int) -> Array:
    """values[:, (i + shift) % neurons] - values[:, i]."""
    neurons = values.shape[1]
    shift = int(shift) % neurons
    result = np.empty_like(values)
    np.subtract(values[:, shift:], values[:, : neurons - shift], out=result[:, : neurons - shift])
    np.subtract(values[:, :shift], values[:, neurons - shift :], out=result[:, neurons - shift :])
    return result


def scores(shifts: Shifts, seen: Moments) -> Array:
    """(shifts, neurons): by how many pooled deviations some head value's mean difference is off the mean over all samples."""
    means, scatter = seen.means[shifts.site], seen.scatter[shifts.site]
    samples = seen.counts.sum()
    result = np.zeros(scatter.shape)
    for m, shift in enumerate(shifts.shifts if samples else ()):
        difference = _differences(means, shift)
        off = np.abs(difference - (seen.counts / samples) @ difference).max(axis=0)
        deviation = np.sqrt(scatter[m] / samples)
        result[m] = off / (deviation + 1e-12 * off + 1e-300)
    return result


def _within(shifts: Shifts, seen: Moments, varying: Bits, partners: int) -> Pairs:
    """For each neuron the partners of its best scores, each pair once."""
    telling = scores(shifts, seen)
    for m in range(len(telling)):
        telling[m, ~(shifts.allowed(m) & varying & varying[shifts.partners(m)])] = -1
    order = np.argsort(-telling, axis=0, kind="stable")[:partners]
    chosen = np.take_along_axis(telling, order, axis=0) >= 0
    i = np.broadcast_to(np.arange(shifts.size), order.shape)
    j = (i + shifts.shifts[order]) % shifts.size
    first, second = i.T[chosen.T], j.T[chosen.T]
    _, places = np.unique(np.minimum(first, second) * shifts.size + np.maximum(first, second), return_index=True)
    places.sort()
    return Pairs(shifts.reason, shifts.site, first[places], shifts.site, second[places])


def _below_share(partners: int) -> int:
    return max(1, partners // 4) if partners else 0


def _between(
    locality: Locality, site: str, sites: Sequence[str], varying: Mapping[str, Bits], partners: int
) -> Iterator[Pairs]:
    """The site's neurons beside those of other sites that they read with the largest weights."""
    found: dict[str, list[tuple[Rows, Rows]]] = {}
    for block, read in locality.below(site, sites):
        for other, i, j in _strongest(block, read, varying, varying[site], _below_share(partners)):
            found.setdefault(other, []).append((i, j))
    for other, parts in found.items():
        i, j = (np.concatenate(column) for column in zip(*parts, strict=True))
        if len(i):
            yield Pairs("neighbour", site, i, other, j)


def _strongest(
    block: Rows, read: Mapping[str, SparseRows], varying: Mapping[str, Bits], own: Bits, most: int
) -> Iterator[tuple[str, Rows, Rows]]:
    """The largest weights of each neuron of the block among all that it reads, by site."""
    if not read:
        return
    index = np.hstack([rows.index for rows in read.values()])
    usable = [(rows.index >= 0) & varying[other][rows.index] for other, rows in read.items()]
    weight = np.where(np.hstack(usable) & own[block][:, None], np.abs(np.hstack([r.weight for r in read.values()])), 0.0)
    source = np.repeat(np.arange(len(read)), [rows.index.shape[1] for rows in read.values()])
    order = np.argsort(-weight, axis=1, kind="stable")[:, :most]
    kept = np.take_along_axis(weight, order, 1) > 0
    neuron = np.broadcast_to(block[:, None], order.shape)
    for place, other in enumerate(read):
        mine = kept & (source[order] == place)
        yield other, neuron[mine], np.take_along_axis(index, order, 1)[mine]
