"""The truth of many predicates on many samples, 64 samples to a word.

Sample s is bit s % 64 of word s // 64. Bits past the last sample are 0 everywhere, so counts need no care.
"""

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadData
from specmine.folder import writing
from specmine.predicates.families import arguments_of, form_of
from specmine.predicates.form import Bits
from specmine.predicates.predicate import Predicate
from specmine.tracing.sites import Sites
from specmine.tracing.trace import Trace, column

Words: TypeAlias = NDArray[np.uint64]
WORD = 64
_BLOCK = 256


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


def word_count(samples: int) -> int:
    """How many words hold the bits of so many samples."""
    return -(-samples // WORD)


def pack(bits: Bits) -> Words:
    """Words (..., words) of Booleans (..., samples).

    >>> pack(np.array([True, False, True])).tolist()
    [5]
    """
    packed = np.packbits(np.asarray(bits, dtype=bool), axis=-1, bitorder="little")
    padded = np.zeros((*packed.shape[:-1], 8 * word_count(bits.shape[-1])), dtype=np.uint8)
    padded[..., : packed.shape[-1]] = packed
    return padded.view("<u8").astype(np.uint64, copy=False)


def unpack(words: Words, samples: int) -> Bits:
    """Booleans (..., samples) of words (..., words)."""
    as_bytes = np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
    return np.unpackbits(as_bytes, axis=-1, count=samples, bitorder="little").astype(bool)


def build_table(predicates: Iterable[Predicate], trace: Trace, *, batch: int = 4096) -> PredicateTable:
    """The table of valid predicates on the samples of a trace; `batch` is rounded up to whole words.

    Predicates of one form and site are computed together, a block at a time, so the work space is small.
    """
    listed = tuple(predicates)
    words = np.zeros((len(listed), word_count(trace.samples)), dtype=np.uint64)
    groups = [(rows, arguments_of([listed[row] for row in rows])) for rows in _groups(listed, trace.sites)]
    per_batch = word_count(batch)
    for first in range(0, words.shape[1], per_batch):
        samples = slice(first * WORD, (first + per_batch) * WORD)
        columns = _Columns(trace, samples)
        for rows, arguments in groups:
            form = form_of(listed[rows[0]])
            words[rows, first : first + per_batch] = pack(form.bits(arguments, columns, trace.sites))
    return PredicateTable(listed, words, trace.samples)


class _Columns(dict[str, NDArray[np.float64]]):
    """Values (neurons, samples) of a slice of samples, by site; turned when first asked for."""

    def __init__(self, trace: Trace, samples: slice) -> None:
        super().__init__()
        self.trace, self.samples = trace, samples

    def __missing__(self, site: str) -> NDArray[np.float64]:
        self[site] = np.ascontiguousarray(column(self.trace, site)[self.samples].T)
        return self[site]


def _groups(predicates: Sequence[Predicate], sites: Sites) -> list[NDArray[np.int64]]:
    """Rows of predicates of one form and the same sites, in blocks."""

    def key(row: int) -> tuple[str, tuple[str, ...]]:
        predicate = predicates[row]
        return predicate.form, form_of(predicate).sites(predicate.arguments, sites)

    grouped = [list(rows) for _, rows in groupby(sorted(range(len(predicates)), key=key), key=key)]
    return [np.array(rows[i : i + _BLOCK]) for rows in grouped for i in range(0, len(rows), _BLOCK)]


def full_mask(samples: int) -> Words:
    """Words (words,) with the bit of every sample set."""
    return pack(np.ones(samples, dtype=bool))


def counts(table: PredicateTable, mask: Words | None = None) -> NDArray[np.int64]:
    """How many samples satisfy each predicate (predicates,), of those in the mask (words,) where one is given."""
    result = np.empty(len(table.predicates), dtype=np.int64)
    for start in range(0, len(result), _BLOCK):
        block = table.bits[start : start + _BLOCK]
        masked = block if mask is None else block & mask
        result[start : start + _BLOCK] = np.bitwise_count(masked).sum(axis=1, dtype=np.int64)
    return result


def count(words: Words) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(words).sum(dtype=np.int64))


def conjunction(table: PredicateTable, rows: Sequence[int] | NDArray[np.int64]) -> Words:
    """Words (words,) of the samples that satisfy every predicate of the rows; all samples for no row."""
    if len(rows) == 0:
        return full_mask(table.samples)
    return np.bitwise_and.reduce(table.bits[np.asarray(rows, dtype=np.int64)], axis=0)


def sample_bits(table: PredicateTable, sample: int) -> Bits:
    """Truth (predicates,) of every predicate on one sample."""
    if not 0 <= sample < table.samples:
        raise BadData(f"the table has samples 0 to {table.samples - 1}, got {sample}")
    return (table.bits[:, sample // WORD] >> np.uint64(sample % WORD)) & np.uint64(1) != 0


def select(table: PredicateTable, samples: Any) -> PredicateTable:
    """The table of some samples; `samples`: places or a Boolean mask."""
    chosen = np.arange(table.samples)[samples]
    words = np.empty((len(table.predicates), word_count(len(chosen))), dtype=np.uint64)
    for start in range(0, len(words), _BLOCK):
        rows = slice(start, start + _BLOCK)
        words[rows] = pack(unpack(table.bits[rows], table.samples)[:, chosen])
    return PredicateTable(table.predicates, words, len(chosen))


def select_predicates(table: PredicateTable, rows: Any) -> PredicateTable:
    """The table of some predicates; `rows`: places or a Boolean mask."""
    chosen = np.arange(len(table.predicates))[rows]
    return PredicateTable(tuple(table.predicates[row] for row in chosen), table.bits[chosen], table.samples)


def merge(first: PredicateTable, second: PredicateTable) -> PredicateTable:
    """One table of the samples of both, the first's before the second's; raises BadData where the predicates differ."""
    if first.predicates != second.predicates:
        raise BadData(
            f"tables of different predicates cannot be merged: {len(first.predicates)} and {len(second.predicates)}; build "
            f"both from one list of predicates"
        )
    samples = first.samples + second.samples
    words = np.zeros((len(first.predicates), word_count(samples)), dtype=np.uint64)
    start, shift = divmod(first.samples, WORD)
    words[:, : first.bits.shape[1]] = first.bits
    words[:, start : start + second.bits.shape[1]] |= second.bits << np.uint64(shift)
    if shift:
        over = words[:, start + 1 :]
        over |= (second.bits >> np.uint64(WORD - shift))[:, : over.shape[1]]
    return PredicateTable(first.predicates, words, samples)


def save_table(table: PredicateTable, path: Path) -> None:
    """Writes the table as an npz file, whole or not at all; raises BadRun where it cannot."""
    text = json.dumps([[p.form, *p.arguments] for p in table.predicates])
    with writing(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez(file, predicates=np.frombuffer(text.encode(), dtype=np.uint8), bits=table.bits, samples=table.samples)


def load_table(path: Path) -> PredicateTable:
    """The table of an npz file; raises BadData where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            rows = json.loads(file["predicates"].tobytes().decode())
            predicates = tuple(Predicate(form, tuple(arguments)) for form, *arguments in rows)
            return PredicateTable(predicates, file["bits"], int(file["samples"]))
    except (OSError, ValueError, KeyError, EOFError, TypeError, AssertionError, zipfile.BadZipFile) as error:
        raise BadData(f"cannot read predicate table {path}: {error}; delete it and build it again") from error
