"""Which pattern each attention head follows, by a test over samples, without being told where to look.

On each sample the probability that a head puts on each pattern of keys is compared: every fixed distance back (0 is the token
itself, 1 the previous token), the first token, the last occurrence of the query's token (duplicate token) and the token after
that (induction; Olsson et al. 2022). What a pattern gets is measured against what keys drawn at random in each row would
get, in standard deviations of that, so that a pattern with few queries, or with queries that see few keys, has little gain.
The pattern that stands out the most on a sample wins it. What gain is left, as that of a pattern whose rivals are absent,
is taken out by a pairing: the same sample is judged again after the shares of each row were shuffled among the keys that its
query sees. If a head preferred no key, the two would win equally often, for any number of samples; the samples where one of
them wins alone are tested against that (McNemar's exact test, one-sided), and q is adjusted over all heads and patterns.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from specmine.errors import BadData
from specmine.stats.counts import benjamini_hochberg
from specmine.tracing import AttentionLayer, Source, column, part_of, traced
from specmine.tracing.stream import ranges
from verifier.ops import Array

CHUNK = 256
NAMED = {0: "self_token", 1: "previous_token"}


@dataclass(frozen=True)
class Role:
    """A pattern that a head may follow. site: a1, a2, ...; mass: its mean probability on the pattern's keys, over queries that
    see more than one key; wins: the samples, of those where the pattern has such a query, on which it stands out the most;
    chance: those on which it does after shuffling; q: over all heads and patterns."""

    site: str
    head: int
    pattern: str
    mass: float
    wins: int
    chance: int
    samples: int
    p: float
    q: float


def head_roles(source: Source, *, tokens: NDArray[np.integer] | None = None, seed: int = 0) -> list[Role]:
    """The roles of every head and pattern, the most certain first, of equal ones those with the greater mass.

    tokens: (samples, positions) what stands at each position, for duplicate token and induction; without it only patterns of
    fixed places are looked at. seed: of the shuffling. Raises BadData where the network has no attention whose keys are its
    queries, or the tokens do not fit.
    """
    layers = [layer for layer in source.sites.attention if layer.probability_index.shape[1] == layer.probability_index.shape[2]]
    if not layers:
        raise BadData("head roles need attention whose queries and keys are the same tokens; this network has none")
    found = [entry for layer in layers for entry in _tallies(source, layer, tokens, seed)]
    p = [min(1.0, float(binom.sf(alone - 1, alone + shuffled, 0.5))) for _, alone, shuffled in found]
    q = benjamini_hochberg(p)
    roles = [Role(*entry, p=a, q=float(b)) for (entry, _, _), a, b in zip(found, p, q, strict=True)]
    return sorted(roles, key=lambda role: (role.p, -role.mass, role.site, role.head))


def _tallies(
    source: Source, layer: AttentionLayer, tokens: NDArray[np.integer] | None, seed: int
) -> Iterator[tuple[tuple[str, int, str, float, int, int, int], int, int]]:
    """For each head and pattern the fields of its role up to p, and the samples won before, and after, shuffling alone."""
    heads, positions, _ = layer.probability_index.shape
    names = [*(NAMED.get(back, f"{back}_back") for back in range(positions)), "first_token"]
    names += [] if tokens is None else ["duplicate_token", "induction"]
    if tokens is not None and tokens.shape != (source.samples, positions):
        raise BadData(f"tokens must have shape ({source.samples}, {positions}) for {layer.name}, got {tokens.shape}")
    total, seen, wins, chance, both = (np.zeros((heads, len(names))) for _ in range(5))
    visible = layer.probability_index >= 0
    rng = np.random.default_rng(seed)
    for rows in ranges(source.samples, CHUNK):
        values = column(traced(part_of(source, rows), [layer.name]), layer.name)
        shares = np.where(visible, values[:, layer.probability_index], 0.0)
        keys = _keys(len(shares), positions, None if tokens is None else tokens[rows])
        masses, scores = _measured(shares, visible, keys)
        won, by_chance = _winners(scores), _winners(_measured(_shuffled(shares, visible, rng), visible, keys)[1])
        wins, chance, both = wins + won.sum(axis=0), chance + by_chance.sum(axis=0), both + (won & by_chance).sum(axis=0)
        total += np.nansum(masses, axis=0)
        seen += (~np.isnan(masses)).sum(axis=0)
    for head in range(heads):
        for place, name in enumerate(names):
            at = (head, place)
            mass = float(total[at] / seen[at]) if seen[at] else 0.0
            fields = (layer.name, head, name, mass, int(wins[at]), int(chance[at]), int(seen[at]))
            yield fields, int(wins[at] - both[at]), int(chance[at] - both[at])


def _winners(scores: Array) -> NDArray[np.bool_]:
    """Which pattern (samples, heads, patterns) has the greatest score of all that a sample has; none where two have it."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    greatest = known == known.max(axis=2, keepdims=True)
    return greatest & (greatest.sum(axis=2, keepdims=True) == 1) & ~np.isnan(scores)


def _shuffled(shares: Array, visible: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """The shares (samples, heads, queries, keys) of each row in random order among its visible keys."""
    order = np.argsort(np.where(visible, rng.random(shares.shape), 2.0), axis=3)
    places = np.broadcast_to(np.argsort(~visible, axis=2, kind="stable"), shares.shape)
    shuffled = np.empty_like(shares)
    np.put_along_axis(shuffled, places, np.take_along_axis(shares, order, axis=3), axis=3)
    return shuffled


def _keys(samples: int, positions: int, tokens: NDArray[np.integer] | None) -> NDArray[np.int64]:
    """The key (samples, patterns, queries) that each pattern means for each query, -1 where there is none."""
    queries = np.arange(positions)
    fixed = [queries - back for back in range(positions)] + [np.where(queries > 0, 0, -1)]
    keys = np.broadcast_to(np.stack(fixed), (samples, positions + 1, positions))
    keys = np.where(keys >= 0, keys, -1)
    if tokens is None:
        return keys
    last = last_occurrence(tokens)
    return np.concatenate([keys, last[:, None], np.where(last >= 0, last + 1, -1)[:, None]], axis=1)


def _measured(shares: Array, visible: NDArray[np.bool_], keys: NDArray[np.int64]) -> tuple[Array, Array]:
    """For each sample, head and pattern the mean probability on its keys and the standard score of the sum, NaN without a key.

    shares: (samples, heads, queries, keys), 0 where not visible (heads, queries, keys). The score is 0 where rows are uniform.
    """
    count = visible.sum(axis=2)
    mean = np.divide(1.0, count, out=np.zeros(count.shape), where=count > 0)
    variance = np.where(visible, np.square(shares - mean[..., None]), 0.0).sum(axis=3) * mean
    several = (count > 1)[None, :, None, :]
    there = (keys >= 0)[:, None] & several
    safe = np.maximum(keys, 0)
    rows, queries = np.arange(len(shares))[:, None, None], np.arange(shares.shape[2])
    picked = np.stack([shares[rows, head, queries, safe] for head in range(shares.shape[1])], axis=1)
    number = there.sum(axis=3)
    total = np.where(there, picked, 0.0).sum(axis=3)
    chance = np.where(there, mean[None, :, None, :], 0.0).sum(axis=3)
    spread = np.sqrt(np.where(there, variance[:, :, None, :], 0.0).sum(axis=3))
    masses = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    scores = np.divide(total - chance, spread, out=np.zeros(total.shape), where=spread > 1e-9)
    return masses, np.where(number > 0, scores, np.nan)


def last_occurrence(tokens: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where (samples, positions) the token of each position stood last before it; -1 where it did not.

    >>> last_occurrence(np.array([[5, 6, 5, 5]])).tolist()
    [[-1, -1, 0, 2]]
    """
    positions = tokens.shape[1]
    same = (tokens[:, :, None] == tokens[:, None, :]) & np.tri(positions, k=-1, dtype=bool)
    return np.where(same.any(axis=2), positions - 1 - same[:, :, ::-1].argmax(axis=2), -1)
