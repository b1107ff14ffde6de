"""Tables of predicate bits on disk (zarr version 3): built chunk by chunk, resumed after a kill, read piece by piece.

The array `bits` (predicates, words) is cut into chunks of ROWS predicates by a fixed number of words, each a file that appears
whole or not at all and carries a checksum; `predicates` holds their list as JSON; the attributes say what the table is of
and how many columns of chunks are done. Whoever computes a column of chunks writes it, so workers on other machines need
the folder at the same path.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.errors import BaseZarrError

from specmine.errors import BadData
from specmine.folder import TEMPORARY, cannot_write, differences, locked
from specmine.predicates.form import Rows
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import predicates_of, predicates_text
from specmine.predicates.tabulate import Batch, Turned, batches_of, sites_of, tabulate
from specmine.predicates.words import WORD, Words, joined, word_count
from specmine.progress import SILENT, Progress
from specmine.tracing.digest import join_digests, samples_digest
from specmine.tracing.stream import MEMORY_MB, Source, chunk_for, run_chunks, traced

ROWS = 4096
SCHEMA = "specmine.table/1"


@dataclass(frozen=True)
class Identity:
    """What a table is of: sha256 of the network and of the list of predicates, the digest of the samples, their number."""

    network: str
    data: str
    predicates: str
    samples: int


@dataclass(frozen=True, eq=False)
class StoredTable:
    """A finished table on disk; `words` reads only the chunks that it needs."""

    path: Path
    identity: Identity
    predicates: tuple[Predicate, ...]
    bits: Any

    @property
    def samples(self) -> int:
        return self.identity.samples

    @property
    def grain(self) -> int:
        return ROWS

    def words(self, rows: slice | Rows, part: slice = slice(None)) -> Words:
        """Words (chosen rows, chosen words), rows in any order; raises BadData where the folder is damaged."""
        with _reading(self.path):
            if isinstance(rows, slice):
                return np.asarray(self.bits[rows, part], dtype=np.uint64)
            if len(rows) == 0:
                return np.empty((0, len(range(*part.indices(self.bits.shape[1])))), dtype=np.uint64)
            return np.asarray(self.bits.get_orthogonal_selection((np.asarray(rows), part)), dtype=np.uint64)


def identity_of(predicates: Sequence[Predicate], source: Source) -> Identity:
    """The identity of the table of predicates on the samples of a source."""
    return _identity(predicates_text(predicates), source)


def _identity(text: str, source: Source) -> Identity:
    return Identity(source.sites.network.sha256, samples_digest(source), _sha256(text), source.samples)


def write_table(
    path: Path,
    predicates: Sequence[Predicate],
    source: Source,
    *,
    executor: Executor | None = None,
    memory_mb: float = MEMORY_MB,
    progress: Progress = SILENT,
) -> StoredTable:
    """The table of valid predicates at a path, built there, finished, or found; the samples are traced once, never kept.

    A table that was begun with the same predicates, network and samples goes on from its last whole column of chunks.
    memory_mb bounds the values held at a time, whatever the number of samples; it sets the width of chunks, not the bits.
    An executor's workers write into the folder themselves. Raises BadData where the path holds a table of something else,
    BadRun where it cannot be written or the disk is full: what was written stays, and is gone on with.
    """
    listed, path = tuple(predicates), Path(path)
    blocks = [batches_of(listed[start : start + ROWS], source.sites) for start in range(0, len(listed), ROWS)]
    keep = sites_of(chain.from_iterable(blocks))
    chunk = chunk_for(source, keep, memory_mb)
    text = predicates_text(listed)
    with _writing(path, _identity(text, source), text, len(listed), chunk // WORD) as group:
        chunk = group["bits"].chunks[1] * WORD
        work = partial(_write_column, path=path, blocks=blocks, predicates=len(listed), keep=keep)
        done = int(group.attrs["done"])
        parts = run_chunks(executor, work, source, chunk=chunk, first=done)
        _follow(group, (rows for rows, _ in parts), done, progress, source.samples)
    return _opened(path, listed)


def merge_tables(path: Path, first: StoredTable, second: StoredTable, *, progress: Progress = SILENT) -> StoredTable:
    """The table, at a path, of the samples of both, the first's before the second's; resumed as `write_table` is.

    Raises BadData where their networks or predicates differ, naming both hashes.
    """
    for name in ("network", "predicates"):
        ours, theirs = getattr(first.identity, name), getattr(second.identity, name)
        if ours != theirs:
            raise BadData(f"tables of different {name} cannot be merged: sha256 {ours} and {theirs}")
    one, two = first.identity, second.identity
    data = join_digests(one.data, one.samples, two.data)
    whole = Identity(one.network, data, one.predicates, one.samples + two.samples)
    width = max(first.bits.chunks[1], second.bits.chunks[1])
    listed = first.predicates
    with _writing(Path(path), whole, predicates_text(listed), len(listed), width) as group:
        bits, done = group["bits"], int(group.attrs["done"])
        _follow(group, _joined_columns(bits, first, second, done), done, progress, whole.samples)
    return _opened(Path(path), listed)


def open_table(path: Path, *, network: str | None = None, data: str | None = None) -> StoredTable:
    """The finished table at a path.

    network, data: the network's sha256 and the digest of the samples that it should be of. Raises BadData where the table is
    missing, unfinished, damaged, or of another network or other samples, naming both hashes.
    """
    found = _opened(Path(path), None)
    for name, wanted in (("network", network), ("data", data)):
        if wanted is not None and wanted != getattr(found.identity, name):
            held = getattr(found.identity, name)
            raise BadData(
                f"table {path} is of another {name}: its hash is {held}, wanted is {wanted}; build the table again, or name "
                f"the one that belongs to it"
            )
    return found


def _opened(path: Path, predicates: tuple[Predicate, ...] | None) -> StoredTable:
    """The finished table at a path; predicates: what it lists, where that is known."""
    with _reading(path):
        group = _group(path, "r")
        attributes, bits = _attributes(group), group["bits"]
        identity = Identity(**attributes["identity"])
        if bits.shape[1] != word_count(identity.samples):
            raise ValueError("its parts do not belong together")
        _check_finished(path, int(attributes["done"]), bits)
        return StoredTable(path, identity, _listed(group, identity) if predicates is None else predicates, bits)


def _listed(group: Any, identity: Identity) -> tuple[Predicate, ...]:
    text = group["predicates"][:].tobytes().decode()
    if _sha256(text) != identity.predicates:
        raise ValueError("its parts do not belong together")
    return predicates_of(text)


def _group(path: Path, mode: Literal["r", "r+"]) -> Any:
    return zarr.open_group(path, mode=mode)


def _attributes(group: Any) -> Mapping[str, Any]:
    attributes: Mapping[str, Any] = group.attrs.asdict()
    if attributes.get("schema") != SCHEMA:
        raise ValueError(f"it is not of schema {SCHEMA!r}")
    return attributes


def _check_finished(path: Path, done: int, bits: Any) -> None:
    columns = -(-bits.shape[1] // bits.chunks[1])
    if done < columns:
        raise BadData(f"predicate table {path} is unfinished: {done} of {columns} parts are done; what wrote it goes on there")
    if bits.nchunks_initialized != bits.nchunks:
        raise ValueError(f"{bits.nchunks - bits.nchunks_initialized} of its {bits.nchunks} chunks are missing")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, BaseZarrError) as error:
        raise BadData(f"cannot read predicate table {path}: {error}; delete it and build it again") from error


@contextmanager
def _writing(path: Path, identity: Identity, text: str, predicates: int, width: int) -> Iterator[Any]:
    """The group at a path, made where there is none, while no other process writes it."""
    try:
        if not path.exists():
            _create(path, identity, text, predicates, width)
        with _reading(path):
            found = _attributes(_group(path, "r"))["identity"]
        differing = list(differences(found, asdict(identity)))
        if differing:
            raise BadData(f"{path} is another table: {'; '.join(differing)}; name another path or delete it")
        with locked(path):
            yield _group(path, "r+")
    except OSError as error:
        raise cannot_write(path, error) from error


def _create(path: Path, identity: Identity, text: str, predicates: int, width: int) -> None:
    """An empty table at the path, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        group = zarr.open_group(temporary, mode="w", zarr_format=3)
        encoded = np.frombuffer(text.encode(), dtype=np.uint8)
        group.create_array("predicates", data=encoded, chunks=(len(encoded),), compressors=[Crc32cCodec()])
        group.create_array(
            "bits",
            shape=(predicates, word_count(identity.samples)),
            chunks=(max(min(ROWS, predicates), 1), max(min(width, word_count(identity.samples)), 1)),
            dtype="<u8",
            compressors=[Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
        group.update_attributes({"schema": SCHEMA, "identity": asdict(identity), "done": 0})
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _follow(group: Any, columns: Iterator[slice], done: int, progress: Progress, samples: int) -> None:
    """Notes each column of chunks as it is written."""
    progress.start("table", samples)
    for rows in columns:
        done += 1
        group.update_attributes({"done": done})
        progress.advance(rows.stop - rows.start)
    progress.finish()


def _write_column(
    part: Source, rows: slice, *, path: Path, blocks: Sequence[Sequence[Batch]], predicates: int, keep: Sequence[str]
) -> None:
    """Writes the bits of all predicates on a range of samples."""
    bits = _bits_of(path)
    columns = Turned(traced(part, keep))
    words = slice(rows.start // WORD, word_count(rows.stop))
    for number, batches in enumerate(blocks):
        first, last = ROWS * number, min(ROWS * (number + 1), predicates)
        bits[first:last, words] = tabulate(batches, last - first, columns, part.sites, part.samples)


def _bits_of(path: Path) -> Any:
    return zarr.open_array(path, path="bits", mode="r+", config={"write_empty_chunks": True})


def _joined_columns(bits: Any, first: StoredTable, second: StoredTable, done: int) -> Iterator[slice]:
    width = bits.chunks[1]
    samples = first.samples + second.samples
    for start in range(done * width, bits.shape[1], width):
        part = slice(start, min(start + width, bits.shape[1]))
        for row in range(0, bits.shape[0], ROWS):
            rows = slice(row, min(row + ROWS, bits.shape[0]))
            bits[rows, part] = _joined_words(first, second, rows, part)
        yield slice(start * WORD, min(part.stop * WORD, samples))


def _joined_words(first: StoredTable, second: StoredTable, rows: slice, part: slice) -> Words:
    """Some words of some rows of the joined table."""
    begin, end = part.start * WORD, min(part.stop * WORD, first.samples + second.samples)
    ours = min(max(first.samples - begin, 0), end - begin)
    before = first.words(rows, slice(part.start, part.start + word_count(ours)))
    at = max(begin - first.samples, 0)
    room = word_count(end - begin) - ours // WORD
    after = _shifted(second.words(rows, slice(at // WORD, at // WORD + room + 1)), at % WORD)[:, :room]
    return joined(before, ours, after, total=end - begin)


def _shifted(words: Words, skip: int) -> Words:
    """Words (rows, words) without their first `skip` samples, fewer than a word's."""
    if not skip:
        return words
    made = words >> np.uint64(skip)
    made[:, :-1] |= words[:, 1:] << np.uint64(WORD - skip)
    return made


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
