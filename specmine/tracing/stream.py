"""Samples run through the network a chunk at a time, so that no trace need be kept."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.tracing.sites import Sites
from specmine.tracing.trace import Trace, select_samples, trace
from verifier.ops import Array

CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Stream:
    """Samples x (samples, *input shape) that are traced whenever they are looked at."""

    sites: Sites
    x: Array

    @property
    def samples(self) -> int:
        return len(self.x)


Source: TypeAlias = Trace | Stream
"""Where values of sites come from: kept, or computed anew each time."""


def chunks(source: Source, keep: Collection[str], *, chunk: int = CHUNK) -> Iterator[tuple[slice, Trace]]:
    """The samples in order, `chunk` at a time: which they are, and their trace, which holds at least the kept sites."""
    for start in range(0, source.samples, chunk):
        rows = slice(start, min(start + chunk, source.samples))
        match source:
            case Trace():
                yield rows, select_samples(source, rows)
            case Stream():
                yield rows, trace(source.sites, source.x[rows], keep=keep, batch=chunk)


def classes_of(source: Source) -> NDArray[np.int64]:
    """The class (samples,) that the network gives to each sample, -1 where outputs tie."""
    if isinstance(source, Trace):
        return source.predictions
    return np.concatenate([part.predictions for _, part in chunks(source, ())])
