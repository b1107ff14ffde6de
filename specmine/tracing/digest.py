"""What samples a source holds, as one number: digests of consecutive parts give the digest of the whole."""

import hashlib

import numpy as np

from specmine.tracing.stream import Source, Stream, ranges
from specmine.tracing.trace import Trace
from verifier.ops import Array

_CHUNK = 256
_PRIME = 2**255 - 19
_BASE = int.from_bytes(hashlib.sha256(b"specmine samples").digest(), "big") % _PRIME


def samples_digest(source: Source) -> str:
    """64 hexadecimal digits that depend on every sample and their order; a trace is known by the values it kept.

    The sum over samples i of sha256(float64 values) * base**i modulo the prime 2**255 - 19: it tells data sets apart that
    were not made to be mistaken for one another.
    """
    total, power = 0, 1
    for rows in ranges(source.samples, _CHUNK):
        for row in _numbers(source, rows):
            total = (total + int.from_bytes(hashlib.sha256(row).digest(), "big") * power) % _PRIME
            power = power * _BASE % _PRIME
    return f"{total:064x}"


def join_digests(first: str, samples: int, second: str) -> str:
    """The digest of `samples` samples of digest `first` followed by those of digest `second`."""
    return f"{(int(first, 16) + int(second, 16) * pow(_BASE, samples, _PRIME)) % _PRIME:064x}"


def _numbers(source: Source, rows: slice) -> Array:
    """The numbers (samples, any) that identify each of a range of samples."""
    match source:
        case Stream():
            values = np.asarray(source.x[rows])
            return np.ascontiguousarray(values.reshape(len(values), -1), dtype="<f8")
        case Trace():
            kept = [source.values[site][rows] for site in sorted(source.values)]
            return np.ascontiguousarray(np.concatenate([source.predictions[rows, None], *kept], axis=1), dtype="<f8")
