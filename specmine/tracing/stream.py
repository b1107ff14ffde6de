"""Samples run through the network a chunk at a time, here or by the workers of an executor, so that no trace need be kept.

Chunks are fixed ranges of samples, whoever computes them, and what they give comes back in their order: a pass gives the
same result on one core, on a process pool, and on a cluster (`dask.distributed.Client.get_executor()`).
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from specmine.tracing.sites import Sites
from specmine.tracing.trace import Trace, select_samples, trace
from verifier.ops import Array

CHUNK = 4096
WORD = 64
MEMORY_MB = 1024
_WAITING = 8  # chunks handed to an executor at a time: each holds its samples

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Stream:
    """Samples x (samples, *input shape) that are traced whenever they are looked at.

    x may be larger than memory where it is an array that reads what is sliced from it, such as a numpy memory map.
    """

    sites: Sites
    x: Array

    @property
    def samples(self) -> int:
        return len(self.x)


Source: TypeAlias = Trace | Stream
"""Where values of sites come from: kept, or computed anew each time."""


def chunks(source: Source, keep: Collection[str], *, chunk: int | None = None) -> Iterator[tuple[slice, Trace]]:
    """The samples in order, `chunk` at a time: which they are, and their trace, which holds at least the kept sites.

    chunk: by default as many as fit into MEMORY_MB.
    """
    for rows in ranges(source.samples, chunk_for(source, keep, MEMORY_MB) if chunk is None else chunk):
        yield rows, traced(part_of(source, rows), keep)


def ranges(samples: int, chunk: int = CHUNK) -> list[slice]:
    """Consecutive ranges of `chunk` samples; the last may be shorter."""
    return [slice(start, min(start + chunk, samples)) for start in range(0, samples, chunk)]


def part_of(source: Source, rows: Any) -> Source:
    """The source of some of its samples; rows: a slice or places."""
    match source:
        case Trace():
            return select_samples(source, rows)
        case Stream():
            return Stream(source.sites, source.x[rows])


def traced(source: Source, keep: Collection[str]) -> Trace:
    """The trace of a source that is small enough to be held, with at least the kept sites."""
    match source:
        case Trace():
            return source
        case Stream():
            return trace(source.sites, source.x, keep=keep, batch=max(len(source.x), 1))


def run_chunks(
    executor: Executor | None,
    work: Callable[..., T],
    source: Source,
    *,
    chunk: int = CHUNK,
    aligned: Sequence[NDArray[Any]] = (),
    first: int = 0,
) -> Iterator[tuple[slice, T]]:
    """What work(part, rows, *arrays) gives for each range of samples, in the order of the ranges.

    part: the source of the range alone; arrays: the same range of each of `aligned`, arrays (samples, ...). executor:
    where the work is done, here by default; one of processes needs work that pickles. first: how many ranges are left out
    at the start. What the work raises is raised here, and what has not begun is cancelled.
    """
    waiting: deque[tuple[slice, Future[T]]] = deque()
    try:
        for rows in ranges(source.samples, chunk)[first:]:
            arguments = (part_of(source, rows), rows, *(array[rows] for array in aligned))
            if executor is None:
                yield rows, work(*arguments)
                continue
            if len(waiting) == _WAITING:
                done, future = waiting.popleft()
                yield done, future.result()
            waiting.append((rows, executor.submit(work, *arguments)))
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def chunk_for(source: Source, keep: Collection[str], memory_mb: float) -> int:
    """How many samples to trace at a time, whole words, so that their values at the kept sites take half of a budget."""
    sites = source.sites
    kept = sum(sites.size(site) for site in keep)
    inner = max((sites.network.size(node.output) for node in sites.network.nodes), default=0)
    # The values as the network gives them, as a trace, and turned to (neurons, samples); two layers in passing; the input.
    sample_bytes = 8 * (3 * kept + 2 * inner + 3 * sites.network.size(sites.network.input))
    words = int(memory_mb * 2**20 / 2 / sample_bytes) // WORD
    return WORD * min(max(words, 1), CHUNK // WORD)


def classes_of(source: Source, *, executor: Executor | None = None, memory_mb: float = MEMORY_MB) -> NDArray[np.int64]:
    """The class (samples,) that the network gives to each sample, -1 where outputs tie."""
    if isinstance(source, Trace):
        return source.predictions
    chunk = chunk_for(source, (), memory_mb)
    return np.concatenate([found for _, found in run_chunks(executor, _classes, source, chunk=chunk)])


def _classes(part: Source, rows: slice) -> NDArray[np.int64]:
    return traced(part, ()).predictions
