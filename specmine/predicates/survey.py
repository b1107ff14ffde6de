"""Passes over the samples for the quantiles of measures, which keep no trace and give the same on any executor."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial, reduce
from typing import TypeAlias

import numpy as np

from specmine.errors import BadData
from specmine.predicates.form import Columns, Grid, Measure, Rows, Spread
from specmine.predicates.sketch import Sketch, choose_pilot, edge_places, merge_sketches, quantiles, sketch
from specmine.progress import SILENT, Progress
from specmine.tracing.stream import MEMORY_MB, Source, chunk_for, part_of, ranges, run_chunks, traced
from specmine.tracing.trace import Trace, select_samples
from verifier.ops import Array

PILOT = 1024
HEAD_PILOT = 512
_ROWS = 256  # of a measure, computed together

Ends: TypeAlias = tuple[Array, Array]
"""low and high (levels, rows) of a spread."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Some rows of the measure of a number."""

    number: int
    measure: Measure
    rows: slice

    def values(self, columns: Columns) -> Array:
        return self.measure.values(columns, self.rows)


@dataclass(frozen=True, eq=False)
class _Group:
    """Samples whose quantiles are taken: those of one head value, or all for a label of None; places of their pilot."""

    label: int | None
    levels: tuple[float, ...]
    samples: int
    pilot: Rows

    @property
    def edges(self) -> Rows:
        return edge_places(len(self.pilot), self.samples, self.levels)


def survey(
    source: Source,
    measures: Sequence[Measure],
    grid: Grid,
    heads: Rows,
    *,
    executor: Executor | None = None,
    memory_mb: float = MEMORY_MB,
    progress: Progress = SILENT,
) -> tuple[Spread, ...]:
    """The spread of each measure over the samples; `specmine.predicates.sketch` says how exact its quantiles are.

    heads: (samples,) a head value for each sample, -1 for none; a value below the greatest that no sample has gets no
    thresholds, which is logged. Rows whose sketches do not fit into memory_mb together take turns, one pass each. An
    executor of processes needs measures that pickle. Raises BadModel where a measure is NaN.
    """
    heads = np.asarray(heads, dtype=np.int64)
    if heads.shape != (source.samples,) or not source.samples:
        raise BadData(f"a head value is needed for each of {source.samples} samples, got {heads.shape}")
    groups = _groups(grid, heads)
    found: list[list[Ends]] = [[] for _ in measures]
    passes = list(_passes(measures, groups, memory_mb))
    progress.start("survey", len(passes) * source.samples)
    for pieces in passes:
        keep = sorted({site for piece in pieces for site in piece.measure.sites})
        chunk = chunk_for(source, keep, memory_mb)
        edges = _edges(source, pieces, groups, keep, chunk)
        work = partial(_sketches, pieces=pieces, edges=edges, labels=[group.label for group in groups], keep=keep)
        parts = run_chunks(executor, work, source, chunk=chunk, aligned=[heads])
        for piece, made in zip(pieces, _merged(parts, progress), strict=True):
            found[piece.number].append(_ends(made, groups))
    progress.finish()
    levels = sum(len(group.levels) for group in groups)
    return tuple(_spread(parts, levels) for parts in found)


def _groups(grid: Grid, heads: Rows) -> tuple[_Group, ...]:
    pooled = (0.0, *(k / (grid.thresholds + 1) for k in range(1, grid.thresholds + 1)))
    groups = [_Group(None, pooled, len(heads), choose_pilot(np.arange(len(heads)), PILOT))]
    labels = np.unique(heads[heads >= 0])
    absent = np.setdiff1d(np.arange(labels.max(initial=-1) + 1), labels)
    if len(absent):
        _LOG.warning("no sample has head value %s; it gets no thresholds of its own", ", ".join(map(str, absent.tolist())))
    for label in labels.tolist() if grid.head_levels else []:
        members = np.flatnonzero(heads == label)
        groups.append(_Group(label, grid.head_levels, len(members), choose_pilot(members, HEAD_PILOT)))
    return tuple(groups)


def _passes(measures: Sequence[Measure], groups: Sequence[_Group], memory_mb: float) -> Iterator[list[_Piece]]:
    """Pieces of measures, in order, as many at a time as may be sketched together."""
    # The pilot's values, and the edges with both counts, of the whole and of the part that is merged into it.
    row_bytes = sum(8 * len(group.pilot) + 40 * len(group.edges) for group in groups)
    room = max(int(memory_mb * 2**20 / 2 / row_bytes), 1)
    pieces: list[_Piece] = []
    left = room
    for number, measure in enumerate(measures):
        start = 0
        while start < measure.rows:
            stop = min(start + _ROWS, start + left, measure.rows)
            pieces.append(_Piece(number, measure, slice(start, stop)))
            left, start = left - (stop - start), stop
            if not left:
                yield pieces
                pieces, left = [], room
    if pieces:
        yield pieces


def _merged(parts: Iterator[tuple[slice, list[list[Sketch]]]], progress: Progress) -> list[list[Sketch]]:
    """The sketches of all samples from those of ranges of them."""
    total: list[list[Sketch]] = []
    for rows, part in parts:
        total = [list(map(merge_sketches, a, b)) for a, b in zip(total, part, strict=True)] if total else part
        progress.advance(rows.stop - rows.start)
    return total


def _edges(
    source: Source, pieces: Sequence[_Piece], groups: Sequence[_Group], keep: Sequence[str], chunk: int
) -> list[list[Array]]:
    """For each piece and group, sample values (rows, edges) from the group's pilot."""
    wanted = reduce(np.union1d, [group.pilot for group in groups])
    values = [np.empty((piece.rows.stop - piece.rows.start, len(wanted))) for piece in pieces]
    for part in ranges(len(wanted), chunk):
        columns = columns_of(traced(part_of(source, wanted[part]), keep), keep)
        for piece, into in zip(pieces, values, strict=True):
            into[:, part] = piece.values(columns)
    places = [(np.searchsorted(wanted, group.pilot), group.edges) for group in groups]
    return [[np.sort(whole[:, pilot], axis=1)[:, edges] for pilot, edges in places] for whole in values]


def _sketches(
    part: Source,
    rows: slice,
    heads: Rows,
    *,
    pieces: Sequence[_Piece],
    edges: Sequence[Sequence[Array]],
    labels: Sequence[int | None],
    keep: Sequence[str],
) -> list[list[Sketch]]:
    """For each piece and group, the sketch of a range of samples."""
    order = np.argsort(heads, kind="stable")  # so that the samples of a head value stand together
    columns = columns_of(select_samples(traced(part, keep), order), keep)
    ends = {label: np.searchsorted(heads[order], [label, label + 1]) for label in labels if label is not None}
    chosen = [slice(None) if label is None else slice(*ends[label]) for label in labels]
    made = []
    for piece, at in zip(pieces, edges, strict=True):
        values = piece.values(columns)
        made.append([sketch(values[:, members], these) for members, these in zip(chosen, at, strict=True)])
    return made


def columns_of(trace: Trace, keep: Sequence[str]) -> Mapping[str, Array]:
    """Values (neurons, samples) of a trace by site."""
    return {site: np.ascontiguousarray(trace.values[site].T) for site in keep}


def _ends(made: Sequence[Sketch], groups: Sequence[_Group]) -> Ends:
    both = [quantiles(one, group.levels) for one, group in zip(made, groups, strict=True)]
    return np.concatenate([low for low, _ in both]), np.concatenate([high for _, high in both])


def _spread(parts: Sequence[Ends], levels: int) -> Spread:
    low = [np.empty((levels, 0)), *(part for part, _ in parts)]
    high = [np.empty((levels, 0)), *(part for _, part in parts)]
    return Spread(np.concatenate(low, axis=1), np.concatenate(high, axis=1))
