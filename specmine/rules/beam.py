"""The best body of at most a few literals, by beam search over the packed table: quick, good, and without a proof of it.

Where a body that is proved smallest is wanted, see `specmine.rules.smallest`; this one answers how much a few literals of given
families can say at all, which no recall floor asks for.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadConfig, BadData
from specmine.predicates.table import PredicateTable, Words, conjunction, count, full_mask, select, unpack
from specmine.rules.threshold import sample_mask

_BLOCK = 512
_Entry: TypeAlias = tuple[float, tuple[int, ...], Words]
SCREENED = 4096


@dataclass(frozen=True)
class Body:
    """Rows of the table, in the order in which they were chosen, and their F1 on the samples of the search."""

    rows: tuple[int, ...]
    f1: float


def best_body(
    table: PredicateTable,
    positives: NDArray[np.bool_],
    *,
    max_body: int = 8,
    width: int = 4,
    screened: int = SCREENED,
) -> Body:
    """The body of at most max_body literals with the highest F1 for the positives (samples,) that the beam finds.

    Every other sample is a negative. width: bodies kept after each literal. Only the `screened` predicates that are best
    alone, and as many that alone lose fewest positives and exclude most negatives, are looked at. Ends early where no literal
    raises any F1. Of equal bodies the first in table order wins, so the answer is a function of the table.

    Raises BadConfig for max_body or width below 1, BadData where the mask does not fit or there is no positive.
    """
    if max_body < 1 or width < 1 or screened < 1:
        raise BadConfig(f"max_body, width and screened must be at least 1, got {max_body}, {width} and {screened}")
    wanted = sample_mask(table, positives, name="positives")
    total = count(wanted)
    if not total:
        raise BadData("a body needs at least one positive sample")
    everything = full_mask(table.samples)
    rows = _screen(table, everything, wanted, total, screened)
    bits = np.ascontiguousarray(table.bits[rows])
    beam: list[_Entry] = [(2 * total / (table.samples + total), (), everything)]
    best = Body((), beam[0][0])
    for _ in range(max_body):
        beam = _extend(beam, bits, wanted, total, width)
        if not beam or beam[0][0] <= best.f1:
            break
        best = Body(tuple(int(rows[place]) for place in beam[0][1]), beam[0][0])
    return best


def best_bodies(
    table: PredicateTable,
    positives: NDArray[np.bool_],
    negatives: NDArray[np.bool_],
    *,
    most: int,
    precision: float = 0.0,
    max_body: int = 8,
    width: int = 4,
    screened: int = SCREENED,
) -> list[Body]:
    """Up to `most` bodies, each the best for the positives (samples,) that those before it leave out.

    Ends where the next body would be empty, cover no new positive, or have less than this precision: the share that all
    positives make up of the samples under it. Samples in neither mask count for nothing. Raises as `best_body` does.
    """
    left, found = positives.copy(), list[Body]()
    while len(found) < most and left.any():
        rows = np.flatnonzero(left | negatives)
        body = best_body(select(table, rows), left[rows], max_body=max_body, width=width, screened=screened)
        held = unpack(conjunction(table, body.rows)[None], table.samples)[0]
        hits, errors = int((held & positives).sum()), int((held & negatives).sum())
        if not body.rows or not (held & left).any() or hits < precision * (hits + errors):
            break
        found.append(body)
        left &= ~held
    return found


def _extend(beam: list[_Entry], bits: Words, wanted: Words, total: int, width: int) -> list[_Entry]:
    """The best bodies of one literal more, best first, one for each set of samples."""
    found: list[_Entry] = []
    for score, body, held in beam:
        hits, support = _counts(bits, held, wanted)
        scores = _f1(hits, support, total)
        for place in np.argsort(-scores, kind="stable")[:width].tolist():
            if scores[place] > score:
                found.append((float(scores[place]), (*body, place), held & bits[place]))
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    distinct: dict[bytes, _Entry] = {}
    for entry in found:
        distinct.setdefault(entry[2].tobytes(), entry)
    return list(distinct.values())[:width]


def _screen(table: PredicateTable, everything: Words, wanted: Words, total: int, screened: int) -> NDArray[np.int64]:
    if len(table.predicates) <= screened:
        return np.arange(len(table.predicates))
    hits, support = _counts(table.bits, everything, wanted)
    negatives = table.samples - total
    # Youden's index: a literal that keeps all positives and drops half the negatives is worth more than its F1 says.
    youden = hits / total - (support - hits) / max(negatives, 1)
    alone = np.argsort(-_f1(hits, support, total), kind="stable")[: screened // 2]
    return np.unique(np.concatenate([alone, np.argsort(-youden, kind="stable")[: screened // 2]]))


def _counts(bits: Words, held: Words, wanted: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row of bits, how many positives, and how many samples, of those held satisfy it too."""
    hits, support = np.empty(len(bits), dtype=np.int64), np.empty(len(bits), dtype=np.int64)
    for start in range(0, len(bits), _BLOCK):
        rows = slice(start, start + _BLOCK)
        both = bits[rows] & held
        support[rows] = np.bitwise_count(both).sum(axis=1, dtype=np.int64)
        hits[rows] = np.bitwise_count(both & wanted).sum(axis=1, dtype=np.int64)
    return hits, support


def _f1(hits: NDArray[np.int64], support: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    return 2 * hits / (support + total)
