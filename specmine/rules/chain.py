"""Valid bodies where short ones are not: literals in the order of their worth, as few of them as the verifier accepts.

More literals never break a valid clause, so along a chain of growing bodies the first valid one is found by bisection, and
what is left is shrunk by dropping whatever the proof can spare (METHODS 5; the deletion of chunks is Zeller's ddmin).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.table import PredicateTable, Words, count, full_mask

Rows: TypeAlias = tuple[int, ...]
Validity: TypeAlias = Callable[[Sequence[Rows]], list[bool | None]]
"""Whether each of several bodies is valid; None where that stays open. Asked together, since a verifier shares work."""

Budget: TypeAlias = Callable[[], bool]
"""Whether there is time for another question."""

AT_ONCE = 8


def chain_of(table: PredicateTable, positives: Words, order: Sequence[int], *, required: int, start: Rows = ()) -> Rows:
    """Rows in the given order, after those of `start`, without the ones that would leave fewer than `required` positives.

    Every prefix that holds `start` keeps that many, so the whole chain is the strongest body that the order gives.
    """
    held = np.bitwise_and.reduce(table.bits[list(start)], axis=0) & positives if start else full_mask(table.samples) & positives
    chain = list(start)
    taken = set(start)
    for row in order:
        if row in taken:
            continue
        left = held & table.bits[row]
        if count(left) >= required:
            chain.append(row)
            taken.add(row)
            held = left
    return tuple(chain)


def shortest_prefix(chain: Rows, valid: Validity, budget: Budget, *, at_least: int = 0) -> Rows | None:
    """The shortest valid prefix of a chain; None where the whole chain is not known to be valid.

    Where the time ends, or a prefix stays open, the shortest one that was shown to be valid.
    """
    if not budget() or valid([chain]) != [True]:
        return None
    low, high = at_least - 1, len(chain)  # prefixes up to `low` are taken for invalid, that of `high` is valid
    while high - low > 1 and budget():
        sizes = sorted({low + math.ceil((high - low) * k / (AT_ONCE + 1)) for k in range(1, AT_ONCE + 1)} - {low, high})
        answers = valid([chain[:size] for size in sizes])
        good = [size for size, answer in zip(sizes, answers, strict=True) if answer]
        bad = [size for size, answer in zip(sizes, answers, strict=True) if not answer]
        high = min([high, *good])
        low = max([low, *(size for size in bad if size < high)])
    return chain[:high]


def shrink(body: Rows, valid: Validity, budget: Budget, *, keep: NDArray[np.float64] | None = None) -> Rows:
    """A valid body within a valid body, such that no single literal can be dropped, unless the time ends first.

    keep: (rows of the table,) how much each literal is worth keeping; those worth least are dropped first.
    """
    worth = np.zeros(max(body, default=-1) + 1) if keep is None else keep
    left = sorted(body, key=lambda row: (worth[row], row))
    size = max(1, len(left) // 4)
    fixed: set[int] = set()  # cannot go from this body, so from no smaller one
    while budget():
        chunks = [chunk for chunk in _chunks([row for row in left if row not in fixed], size)]
        dropped = False
        for start in range(0, len(chunks), AT_ONCE):
            some = [chunk for chunk in chunks[start : start + AT_ONCE] if set(chunk) <= set(left)]
            if not some or not budget():
                break
            goes = _droppable(left, some, valid)
            if size == 1:
                fixed |= {chunk[0] for chunk in some if chunk not in goes}
            smaller = _without_as_many(left, goes, valid)
            dropped |= len(smaller) < len(left)
            left = smaller
        if size == 1 and not dropped:
            break
        size = size if dropped and size == 1 else max(1, min(size // 2, len(left) // 2))
    return tuple(sorted(left))


def _chunks(rows: list[int], size: int) -> Iterator[list[int]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _droppable(left: list[int], chunks: list[list[int]], valid: Validity) -> list[list[int]]:
    """The chunks that can each go by itself."""
    answers = valid([_without(left, chunk) for chunk in chunks])
    return [chunk for chunk, answer in zip(chunks, answers, strict=True) if answer]


def _without_as_many(left: list[int], chunks: list[list[int]], valid: Validity) -> list[int]:
    """The body without as many of the chunks, first to last, as were found to go together; each goes by itself."""
    if not chunks:
        return left
    prefixes = [[row for chunk in chunks[: k + 1] for row in chunk] for k in range(len(chunks))]
    answers = [True, *valid([_without(left, rows) for rows in prefixes[1:]])] if len(prefixes) > 1 else [True]
    longest = max(k for k, answer in enumerate(answers) if answer)
    return list(_without(left, prefixes[longest]))


def _without(left: list[int], gone: list[int]) -> Rows:
    out = set(gone)
    return tuple(row for row in left if row not in out)
