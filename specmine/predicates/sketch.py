"""Quantiles of many rows of numbers from one pass over the samples, the same whoever counts which samples in which order.

A small fixed sample of the data, the pilot, gives each row its edges, sample values near the wanted quantiles; then every
sample is counted against the edges. A quantile is the edge whose exact rank serves: the ranks are never estimated, and
counts of parts add up.

Error: no more samples lie beyond a quantile than were asked for; how many fewer is the mass between neighbouring edges.
With a pilot of k samples those are sqrt(p (1 - p) / k) / 4 apart in rank about a quantile of share p: 0.4 % of the samples
for k = 1024. A quantile outside of its edges, four deviations from where the pilot has it, falls back on the edge before
it or on the exact minimum or maximum. Where the pilot is all samples, quantiles are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadModel
from specmine.predicates.form import Rows
from verifier.ops import Array

_EDGES = 33
_DEVIATIONS = 4.0


@dataclass(frozen=True, eq=False)
class Sketch:
    """Ranks of the edges (rows, edges), ascending in each row, among so many samples.

    below, upto: (rows, edges) how many samples are < and <= an edge; least, greatest: (rows,) exact, infinite without samples.
    """

    edges: Array
    below: NDArray[np.int64]
    upto: NDArray[np.int64]
    least: Array
    greatest: Array
    samples: int


def sketch(values: Array, edges: Array) -> Sketch:
    """The sketch of values (rows, samples) at edges (rows, edges); raises BadModel where a value is NaN."""
    ranked = np.sort(values, axis=1)  # NaN comes last
    if ranked.shape[1] and np.isnan(ranked[:, -1]).any():
        raise BadModel("a measure of the network's values is NaN on some sample; check its weights and the scale of the data")
    # x <= edge exactly where x < the next float, so one search in each row finds both counts.
    asked = np.concatenate([edges, np.nextafter(edges, np.inf)], axis=1)
    counted = np.empty(asked.shape, dtype=np.int64)
    for numbers, at, into in zip(ranked, asked, counted, strict=True):
        into[:] = numbers.searchsorted(at)
    below, upto = counted[:, : edges.shape[1]], counted[:, edges.shape[1] :]
    rows = len(values)
    least = ranked[:, 0].copy() if ranked.shape[1] else np.full(rows, np.inf)
    greatest = ranked[:, -1].copy() if ranked.shape[1] else np.full(rows, -np.inf)
    return Sketch(edges, below, upto, least, greatest, values.shape[1])


def merge_sketches(first: Sketch, second: Sketch) -> Sketch:
    """The sketch of the samples of both, which have the same edges."""
    return Sketch(
        first.edges,
        first.below + second.below,
        first.upto + second.upto,
        np.minimum(first.least, second.least),
        np.maximum(first.greatest, second.greatest),
        first.samples + second.samples,
    )


def quantiles(made: Sketch, levels: Sequence[float]) -> tuple[Array, Array]:
    """low and high (levels, rows), sample values with at most a share `level` of the samples below, and above, them.

    The number beyond is at most level * (samples - 1), rounded down; level 0 gives the minimum and the maximum.
    """
    low, high = [], []
    for level in levels:
        beyond = _beyond(level, made.samples)
        # sound: counts of samples below an edge, and above it, are exact, and a fallback leaves no sample out
        low.append(_picked(made.edges, (made.below <= beyond).sum(axis=1) - 1, made.least))
        high.append(_picked(made.edges, (made.samples - made.upto > beyond).sum(axis=1), made.greatest))
    return np.stack(low), np.stack(high)


def edge_places(pilot: int, samples: int, levels: Sequence[float]) -> Rows:
    """Which places of a sorted pilot, drawn from so many samples, are edges for the quantiles of levels."""
    places = [np.zeros(1)]
    for level in levels:
        beyond = _beyond(level, samples)
        share = beyond / max(samples - 1, 1)
        deviation = np.sqrt(pilot * share * (1 - share) * (samples - pilot) / max(samples - 1, 1))
        around = np.floor(share * (pilot - 1) + _DEVIATIONS * deviation * np.linspace(-1, 1, _EDGES) + 1e-9)
        around = np.clip(around, 0, pilot - 1)
        places += [around, pilot - 1 - around]
    return np.unique(np.concatenate(places)).astype(np.int64)


def choose_pilot(members: Rows, size: int) -> Rows:
    """`size` of the members (places of samples), in order: those that hash lowest, so a function of the places alone."""
    if len(members) <= size:
        return members
    return np.sort(members[np.argsort(_hashed(members), kind="stable")[:size]])


def _beyond(level: float, samples: int) -> int:
    return int(np.floor(level * (samples - 1)))


def _picked(edges: Array, places: Rows, fallback: Array) -> Array:
    inside = (places >= 0) & (places < edges.shape[1])
    picked = np.take_along_axis(edges, np.clip(places, 0, edges.shape[1] - 1)[:, None], axis=1)[:, 0]
    return np.where(inside, picked, fallback)


def _hashed(places: Rows) -> NDArray[np.uint64]:
    """Well mixed 64-bit numbers, one for each place (the finaliser of SplitMix64, Steele et al. 2014)."""
    mixed = places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
