"""Evidence of every candidate for every head at once, and the strongest; the definitions are those of counts and evidence.

Chances are kept as logarithms, so that candidates far below the smallest float still have an order.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from specmine.errors import BadData
from specmine.predicates.counting import Device, mask_counts
from specmine.predicates.form import Rows
from specmine.predicates.table import Table
from specmine.predicates.words import Counts, Words, pack, row_counts, word_count
from specmine.stats.evidence import SPLITS, Evidence, split_evidence
from verifier.ops import Array

_BLOCK = 1 << 14
_NEGLIGIBLE = 1e-17
_STEPS = 16


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts by split, in the order of SPLITS.

    samples: (splits,); positives: (splits, heads) samples where a head holds; support: (splits, predicates) where a
    predicate holds; hits: (splits, heads, predicates) where both hold.
    """

    samples: Counts
    positives: Counts
    support: Counts
    hits: Counts


@dataclass(frozen=True, eq=False)
class Shares:
    """What follows from the counts of one split, each (heads, predicates); NaN where it divides by zero.

    Intervals are pairs of arrays, low and high: 95 % Wilson intervals, (0, 1) without data.
    """

    errors: Counts
    precision: Array
    precision_interval: tuple[Array, Array]
    recall: Array
    recall_interval: tuple[Array, Array]
    lift: Array


@dataclass(frozen=True, eq=False)
class Ranking:
    """log_p, log_q: (splits, heads, predicates), one-sided Fisher tests and their adjustment over all candidates and heads.

    strongest: (heads, at most k) rows of predicates with p < 1 on the mining split, the smallest p first, -1 after the last.
    """

    tally: Tally
    log_p: Array
    log_q: Array
    strongest: Rows


def rank(
    table: Table, heads: Words, split: Any, *, k: int = 20, tried: int | None = None, device: Device | None = None
) -> Ranking:
    """Evidence of every predicate of a table, as a body of one literal, for every head.

    heads: (heads, words) where each head holds; split: (samples,) numbers 0 mine, 1 hold-out, 2 test. The strongest are
    chosen on mine alone. tried: the number of tests in all, by default predicates times heads. Raises BadData where heads
    or split do not fit the table.
    """
    made = tally(table, heads, split, device=device)
    log_p = np.stack([_log_p(made, part) for part in range(len(SPLITS))])
    tests = log_p[0].size if tried is None else tried
    log_q = np.stack([log_benjamini_hochberg(part.ravel(), tried=tests).reshape(part.shape) for part in log_p])
    return Ranking(made, log_p, log_q, strongest(log_p[0], k))


def tally(table: Table, heads: Words, split: Any, *, device: Device | None = None) -> Tally:
    """The counts of every predicate with every head, in one pass over the table."""
    parts = np.asarray(split)
    if parts.shape != (table.samples,) or heads.ndim != 2 or heads.shape[1] != word_count(table.samples):
        raise BadData(
            f"heads and split must speak of the table's {table.samples} samples, got heads of {heads.shape[-1]} words and "
            f"split of shape {parts.shape}"
        )
    masks = pack(np.arange(len(SPLITS))[:, None] == parts)
    both = np.concatenate([masks, (masks[:, None] & heads).reshape(-1, heads.shape[1])])
    counted = mask_counts(table, both, device=device)
    hits = counted[len(SPLITS) :].reshape(len(SPLITS), len(heads), len(table.predicates))
    positives = row_counts(both[len(SPLITS) :]).reshape(len(SPLITS), len(heads))
    return Tally(row_counts(masks), positives, counted[: len(SPLITS)], hits)


def strongest(log_p: Array, k: int, *, among: Any = slice(None)) -> Rows:
    """The k rows (heads, at most k) of smallest log p (heads, predicates) below 0, ties by row; -1 after the last.

    among: the rows to choose from, as places in order or a Boolean mask.
    """
    rows = np.arange(log_p.shape[1])[among]
    chosen = log_p[:, rows]
    order = np.argsort(chosen, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(chosen, order, axis=1) < 0, rows[order], -1)


def shares(made: Tally, split: int) -> Shares:
    """Precision, recall and lift, with their intervals, on one split."""
    hits, support, positives = made.hits[split], made.support[split][None, :], made.positives[split][:, None]
    return Shares(
        support - hits,
        _ratio(hits, support),
        wilson_intervals(hits, support),
        _ratio(hits, positives),
        wilson_intervals(hits, positives),
        _ratio(hits.astype(np.float64) * made.samples[split], support.astype(np.float64) * positives),
    )


def evidence_at(ranking: Ranking, head: int, row: int) -> Evidence:
    """The evidence of one candidate for one head, with q over all candidates."""
    made = ranking.tally
    parts = [
        split_evidence(
            samples=int(made.samples[part]),
            positives=int(made.positives[part, head]),
            support=int(made.support[part, row]),
            hits=int(made.hits[part, head, row]),
            q=float(np.exp(ranking.log_q[part, head, row])),
        )
        for part in range(len(SPLITS))
    ]
    return Evidence(*parts)


def wilson_intervals(successes: Any, trials: Any, z: float = 1.96) -> tuple[Array, Array]:
    """`specmine.stats.counts.wilson` of arrays that broadcast: low and high."""
    successes, trials = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    safe = np.maximum(trials, 1)
    share, factor = successes / safe, z * z / safe
    center = (share + factor / 2) / (1 + factor)
    half = z * np.sqrt(share * (1 - share) / safe + factor / (4 * safe)) / (1 + factor)
    low = np.where((successes == 0) | (trials == 0), 0.0, np.maximum(0.0, center - half))
    high = np.where((successes == trials) | (trials == 0), 1.0, np.minimum(1.0, center + half))
    return low, high


def log_fisher_p(samples: Any, positives: Any, support: Any, hits: Any) -> Array:
    """The logarithm of `specmine.stats.counts.fisher_p` of arrays that broadcast.

    The relative error of p is that of log-factorials: about 1e-8 for a million samples.
    """
    arrays = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (samples, positives, support, hits)))
    flat = [array.ravel() for array in arrays]
    result = np.empty(flat[0].shape)
    for start in range(0, len(result), _BLOCK):
        result[start : start + _BLOCK] = _log_tail(*(array[start : start + _BLOCK] for array in flat))
    return result.reshape(arrays[0].shape)


def log_benjamini_hochberg(log_p: Array, *, tried: int) -> Array:
    """The logarithm of `specmine.stats.counts.benjamini_hochberg`, from the logarithms of p (tests,)."""
    if tried < len(log_p):
        raise BadData(f"tried must be at least the number of p values, got {len(log_p)} and tried {tried}")
    order = np.argsort(log_p, kind="stable")
    raw = log_p[order] + np.log(max(tried, 1)) - np.log(np.arange(1, len(log_p) + 1))
    q = np.empty_like(log_p)
    q[order] = np.minimum(np.minimum.accumulate(raw[::-1])[::-1], 0.0)
    return q


def _log_p(made: Tally, split: int) -> Array:
    positives, support = made.positives[split][:, None], made.support[split][None, :]
    return log_fisher_p(made.samples[split], positives, support, made.hits[split])


def _log_tail(samples: Array, positives: Array, support: Array, hits: Array) -> Array:
    """Hypergeometric tails, summed from the number of hits outwards from the mean, where terms only fall."""
    result = np.zeros(hits.shape)
    least = np.maximum(positives + support - samples, 0)
    upward = (hits > least) & (hits * samples > positives * support)
    n, m, s, k = (array[upward] for array in (samples, positives, support, hits))
    result[upward] = _log_mass(n, m, s, k) + np.log(_series(m - k, s - k, k, n - m - s + k))
    downward = (hits > least) & ~upward
    n, m, s, k = (array[downward] for array in (samples, positives, support, hits - 1))
    # Fewer hits fall downwards as more do upwards, with the roles of the four cells of the table exchanged.
    below = np.exp(_log_mass(n, m, s, k)) * _series(k, n - m - s + k, m - k, s - k)
    result[downward] = np.log1p(-np.minimum(below, 1.0))
    return np.minimum(result, 0.0)


def _log_mass(samples: Array, positives: Array, support: Array, hits: Array) -> Array:
    """The log probability of exactly so many hits."""

    def ways(total: Array, chosen: Array) -> Array:
        return np.asarray(gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1))

    return ways(positives, hits) + ways(samples - positives, support - hits) - ways(samples, support)


def _series(a: Array, b: Array, c: Array, d: Array) -> Array:
    """1 + a b / ((c+1) (d+1)) (1 + (a-1) (b-1) / ((c+2) (d+2)) (1 + ...)), to the last term that counts."""
    total, live = np.ones(a.shape), np.arange(len(a))
    term, step, summed = np.ones(a.shape), 0.0, np.ones(a.shape)
    while len(live):
        for _ in range(_STEPS):
            term = term * ((a - step) * (b - step)) / ((c + step + 1) * (d + step + 1))
            summed, step = summed + term, step + 1
            # A cell that has run out makes the term 0, and it stays 0.
        going = term > _NEGLIGIBLE * summed
        total[live] = summed
        live, term, summed = live[going], term[going], summed[going]
        a, b, c, d = a[going], b[going], c[going], d[going]
    return total


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Array:
    top, bottom = np.broadcast_arrays(np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
