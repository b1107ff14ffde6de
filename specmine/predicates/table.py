"""The truth of many predicates on many samples, packed 64 samples to a word, in memory; and what is asked of any table."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadData
from specmine.folder import writing
from specmine.predicates.form import Bits, Rows
from specmine.predicates.predicate import Predicate
from specmine.predicates.tabulate import Turned, batches_of, sites_of, tabulate
from specmine.predicates.words import (
    WORD,
    Words,
    and_counts,
    count,
    full_mask,
    joined,
    pack,
    row_counts,
    unpack,
    word_count,
)
from specmine.tracing.stream import Source, chunks

__all__ = [
    "PredicateTable",
    "Table",
    "Words",
    "build_table",
    "conjunction",
    "count",
    "counts",
    "full_mask",
    "load_table",
    "merge",
    "pack",
    "parts",
    "sample_bits",
    "save_table",
    "select",
    "select_predicates",
    "tiles",
    "unpack",
    "word_count",
]

_TILE_ROWS = 1024
_TILE_WORDS = 2048
_CACHED_ROWS = 32


class Table(Protocol):
    """Any table of bits: one row a predicate, in memory or on disk."""

    @property
    def predicates(self) -> tuple[Predicate, ...]: ...

    @property
    def samples(self) -> int: ...

    @property
    def grain(self) -> int:
        """How many consecutive rows are best read together."""

    def words(self, rows: slice | Rows, part: slice = ...) -> Words:
        """Words (chosen rows, chosen words); only these are read."""


@dataclass(frozen=True, eq=False)
class PredicateTable:
    """bits: (predicates, words), read-only; row r is the truth of predicates[r] on each sample."""

    predicates: tuple[Predicate, ...]
    bits: Words
    samples: int

    def __post_init__(self) -> None:
        words = word_count(self.samples)
        assert self.bits.dtype == np.uint64 and self.bits.shape == (len(self.predicates), words), self.bits.shape
        self.bits.setflags(write=False)

    @property
    def grain(self) -> int:
        return _CACHED_ROWS

    def words(self, rows: slice | Rows, part: slice = slice(None)) -> Words:
        return self.bits[rows, part]


def build_table(predicates: Iterable[Predicate], source: Source, *, batch: int = 4096) -> PredicateTable:
    """The table of valid predicates on the samples of a trace or a stream; `batch` is rounded up to whole words."""
    listed = tuple(predicates)
    words = np.zeros((len(listed), word_count(source.samples)), dtype=np.uint64)
    prepared = batches_of(listed, source.sites)
    for rows, part in chunks(source, sites_of(prepared), chunk=WORD * word_count(batch)):
        first, last = rows.start // WORD, word_count(rows.stop)
        words[:, first:last] = tabulate(prepared, len(listed), Turned(part), source.sites, part.samples)
    return PredicateTable(listed, words, source.samples)


def tiles(table: Table, rows: Rows | None = None, *, grain: int | None = None) -> Iterator[tuple[slice, slice, Words]]:
    """The table in pieces of bounded size: which rows, or which of the given rows, which words, and their bits.

    The rows of one range of words follow one another, `grain` at a time, by default as many as the table reads best.
    """
    total = len(table.predicates) if rows is None else len(rows)
    step = table.grain if grain is None else grain
    for part in parts(table):
        for start in range(0, total, step):
            chosen = slice(start, min(start + step, total))
            yield chosen, part, table.words(chosen if rows is None else rows[chosen], part)


def parts(table: Table) -> Iterator[slice]:
    """Ranges of words that together are all words of a table."""
    words = word_count(table.samples)
    return (slice(first, min(first + _TILE_WORDS, words)) for first in range(0, words, _TILE_WORDS))


def counts(table: Table, mask: Words | None = None) -> NDArray[np.int64]:
    """How many samples satisfy each predicate (predicates,), of those in the mask (words,) where one is given."""
    result = np.zeros(len(table.predicates), dtype=np.int64)
    for rows, part, words in tiles(table):
        result[rows] += row_counts(words) if mask is None else and_counts(words, mask[None, part])[0]
    return result


def conjunction(table: Table, rows: Sequence[int] | NDArray[np.int64]) -> Words:
    """Words (words,) of the samples that satisfy every predicate of the rows; all samples for no row."""
    result = full_mask(table.samples)
    for _, part, words in tiles(table, np.asarray(rows, dtype=np.int64)):
        result[part] &= np.bitwise_and.reduce(words, axis=0)
    return result


def sample_bits(table: Table, sample: int) -> Bits:
    """Truth (predicates,) of every predicate on one sample."""
    if not 0 <= sample < table.samples:
        raise BadData(f"the table has samples 0 to {table.samples - 1}, got {sample}")
    word = sample // WORD
    return (table.words(slice(None), slice(word, word + 1))[:, 0] >> np.uint64(sample % WORD)) & np.uint64(1) != 0


def select(table: Table, samples: Any) -> PredicateTable:
    """The table, in memory, of some samples; `samples`: places or a Boolean mask."""
    chosen = np.arange(table.samples)[samples]
    words = np.empty((len(table.predicates), word_count(len(chosen))), dtype=np.uint64)
    for start in range(0, len(words), _TILE_ROWS):
        rows = slice(start, start + _TILE_ROWS)
        words[rows] = pack(unpack(table.words(rows), table.samples)[:, chosen])
    return PredicateTable(table.predicates, words, len(chosen))


def select_predicates(table: Table, rows: Any) -> PredicateTable:
    """The table, in memory, of some predicates; `rows`: places, a slice or a Boolean mask."""
    chosen = np.arange(len(table.predicates))[rows]
    return PredicateTable(tuple(table.predicates[row] for row in chosen), table.words(chosen), table.samples)


def merge(first: PredicateTable, second: PredicateTable) -> PredicateTable:
    """One table of the samples of both, the first's before the second's; raises BadData where the predicates differ."""
    if first.predicates != second.predicates:
        raise BadData(
            f"tables of different predicates cannot be merged: {len(first.predicates)} and {len(second.predicates)}; build "
            f"both from one list of predicates"
        )
    samples = first.samples + second.samples
    return PredicateTable(first.predicates, joined(first.bits, first.samples, second.bits, total=samples), samples)


def save_table(table: PredicateTable, path: Path) -> None:
    """Writes the table as an npz file, whole or not at all; raises BadRun where it cannot."""
    text = predicates_text(table.predicates)
    with writing(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez(file, predicates=np.frombuffer(text.encode(), dtype=np.uint8), bits=table.bits, samples=table.samples)


def load_table(path: Path) -> PredicateTable:
    """The table of an npz file; raises BadData where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            predicates = predicates_of(file["predicates"].tobytes().decode())
            return PredicateTable(predicates, file["bits"], int(file["samples"]))
    except (OSError, ValueError, KeyError, EOFError, TypeError, AssertionError, zipfile.BadZipFile) as error:
        raise BadData(f"cannot read predicate table {path}: {error}; delete it and build it again") from error


def predicates_text(predicates: Sequence[Predicate]) -> str:
    """Predicates as JSON; `predicates_of` reads them back."""
    return json.dumps([[p.form, *p.arguments] for p in predicates])


def predicates_of(text: str) -> tuple[Predicate, ...]:
    """The predicates of a JSON text; raises ValueError or TypeError where it is no such text."""
    return tuple(Predicate(form, tuple(arguments)) for form, *arguments in json.loads(text))
