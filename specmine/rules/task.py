"""What a body must achieve on the packed table, and what a given body achieves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadData
from specmine.predicates.table import PredicateTable, Words, conjunction, count, counts, sample_bits, select_predicates, unpack
from specmine.rules.dominance import dominated
from specmine.rules.threshold import sample_mask

_BLOCK = 256
_FIRST_WORDS = 4
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Task:
    """Candidates and what their conjunction has to keep and to exclude.

    table: the candidates, without those that alone lose too many positives, exclude nothing, or are no better than another
    on any sample; a place is an index into it, and rows (places,) gives its row in the original table. misses: (places,)
    positives that each is false on. A body keeps at least `required` of the `total` positives.
    """

    table: PredicateTable
    rows: NDArray[np.int64]
    misses: NDArray[np.int64]
    positives: Words
    negatives: Words
    total: int
    required: int
    precision: float

    @property
    def budget(self) -> int:
        """How many positives a body may lose."""
        return self.total - self.required

    def allowed(self, hits: int) -> int:
        """How many negatives may satisfy a body that keeps this many positives."""
        return math.floor(hits * (1 - self.precision) / self.precision * (1 + _ROUNDING))

    def place(self, row: int) -> int | None:
        """The place of a row of the original table, None where it is no candidate."""
        found = np.flatnonzero(self.rows == row)
        return int(found[0]) if len(found) else None

    def measure(self, body: Sequence[int]) -> tuple[int, int]:
        """How many positives and how many negatives satisfy the body."""
        held = conjunction(self.table, body)
        return count(held & self.positives), count(held & self.negatives)

    @cached_property
    def inseparable(self) -> int:
        """How many negatives satisfy every candidate."""
        return self.measure(range(len(self.rows)))[1]

    @cached_property
    def falsifiers(self) -> NDArray[np.int64]:
        """How many candidates are false on each sample (samples,)."""
        total = np.zeros(self.table.samples, dtype=np.int64)
        for start in range(0, len(self.rows), _BLOCK):
            block = unpack(self.table.bits[start : start + _BLOCK], self.table.samples)
            total += len(block) - block.sum(axis=0, dtype=np.int64)
        return total

    def false_on(self, sample: int) -> list[int]:
        """The places of the candidates that are false on a sample."""
        return [int(place) for place in np.flatnonzero(~sample_bits(self.table, sample))]

    def lost_by(self, body: Sequence[int]) -> list[int]:
        """The positives that a body loses, first those that the most candidates lose."""
        lost = np.flatnonzero(unpack(self.positives & ~conjunction(self.table, body), self.table.samples))
        return [int(sample) for sample in lost[np.argsort(-self.falsifiers[lost], kind="stable")]]

    def kept_by(self, body: Sequence[int]) -> list[int]:
        """The negatives that satisfy a body, first those that the fewest candidates exclude."""
        kept = np.flatnonzero(unpack(self.negatives & conjunction(self.table, body), self.table.samples))
        return [int(sample) for sample in kept[np.argsort(self.falsifiers[kept], kind="stable")]]


def make_task(
    table: PredicateTable,
    positives: NDArray[np.bool_],
    negatives: NDArray[np.bool_],
    *,
    recall: float,
    precision: float,
    without: Sequence[int] = (),
    avoided: Sequence[int] = (),
    final: bool = True,
) -> Task:
    """The task of a table, for bodies without the rows `without`; avoided: rows of bodies that must not be proposed.

    final: whether the samples of the table are all that counts. Then a row is left out where another one outside `avoided`
    holds on each positive and fails on each negative that it does: with that one in its place a body stays admissible, is no
    longer, and contains no more of the avoided. Else more negatives may come, and a row is left out only where another one
    implies it, whatever the sample, and holds on the same positives.
    Raises BadData where the masks do not fit, overlap, or there are no positives.
    """
    positive, negative = sample_mask(table, positives, name="positives"), sample_mask(table, negatives, name="negatives")
    total = count(positive)
    if not total:
        raise BadData("a body needs at least one positive sample")
    if (positive & negative).any():
        raise BadData(f"{count(positive & negative)} samples are both positive and negative; they must be disjoint")
    required = math.ceil(recall * total * (1 - _ROUNDING))
    misses = total - counts(table, positive)
    bearable = misses <= total - required
    bearable[np.asarray(without, dtype=np.int64)] = False
    if not final:
        rows = np.flatnonzero(bearable)
        rows = rows[~dominated(table.predicates, table.bits & positive, rows, spared=avoided)]
        return Task(select_predicates(table, rows), rows, misses[rows], positive, negative, total, required, precision)
    useful = bearable & (counts(table, negative) < count(negative))
    rows = _first_of_each(table, np.flatnonzero(useful), positive | negative)
    # Holding where it should, for positives and negatives alike: one row is as good as another where its bits include it.
    good = (table.bits[rows] ^ negative) & (positive | negative)
    rows = rows[_maximal(good, ~np.isin(rows, np.asarray(avoided, dtype=np.int64)))]
    return Task(select_predicates(table, rows), rows, misses[rows], positive, negative, total, required, precision)


def _first_of_each(table: PredicateTable, rows: NDArray[np.int64], mask: Words) -> NDArray[np.int64]:
    """The rows without those that agree with an earlier one on every sample of the mask."""
    first: dict[bytes, int] = {}
    for row in rows.tolist():
        first.setdefault((table.bits[row] & mask).tobytes(), row)
    return np.array(sorted(first.values()), dtype=np.int64)


def _maximal(sets: Words, others: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the distinct sets (sets, words) are in no other one of those marked in `others`."""
    kept = np.zeros(len(sets), dtype=bool)
    larger: list[int] = []
    for place in np.argsort(-np.bitwise_count(sets).sum(axis=1, dtype=np.int64), kind="stable").tolist():
        # A set inside any marked one is inside one that is kept itself, so only those are asked.
        kept[place] = not _inside_one(sets[place], sets, np.array(larger, dtype=np.int64))
        if kept[place] and others[place]:
            larger.append(place)
    return kept


def _inside_one(words: Words, sets: Words, places: NDArray[np.int64]) -> bool:
    """Whether a set lies in one of those at places; most are ruled out by their first few words."""
    start, width = 0, _FIRST_WORDS
    while start < len(words) and len(places):
        part = slice(start, start + width)
        places = places[~(words[part] & ~sets[places, part]).any(axis=1)]
        start, width = start + width, 2 * width
    return len(places) > 0


def greedy_body(task: Task, max_body: int | None) -> tuple[int, ...]:
    """Places chosen one by one, each the one that excludes the most negatives while the recall is kept."""
    body: list[int] = []
    positives, negatives = task.positives, task.negatives
    while max_body is None or len(body) < max_body:
        excluded = count(negatives) - counts(task.table, negatives)
        hits = counts(task.table, positives)
        gain = np.where(hits >= task.required, excluded, 0)
        if count(negatives) <= task.allowed(count(positives)) or not gain.any():
            break
        place = int(np.lexsort((-hits, -gain))[0])
        body.append(place)
        positives, negatives = positives & task.table.bits[place], negatives & task.table.bits[place]
    return tuple(sorted(body))
