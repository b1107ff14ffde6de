"""Truth packed 64 samples to a word: sample s is bit s % 64 of word s // 64.

Bits past the last sample are 0 everywhere, so counts need no care.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.form import Bits

Words: TypeAlias = NDArray[np.uint64]
Counts: TypeAlias = NDArray[np.int64]
WORD = 64
_TILE = 1 << 15  # words of a block whose intermediates stay in the cache


def word_count(samples: int) -> int:
    """How many words hold the bits of so many samples."""
    return -(-samples // WORD)


def pack(bits: Bits) -> Words:
    """Words (..., words) of Booleans (..., samples).

    >>> pack(np.array([True, False, True])).tolist()
    [5]
    """
    packed = np.packbits(np.asarray(bits, dtype=bool), axis=-1, bitorder="little")
    if bits.shape[-1] % WORD == 0:
        packed = np.ascontiguousarray(packed)  # of bits in another order it is not
        return packed.view("<u8").astype(np.uint64, copy=False)
    padded = np.zeros((*packed.shape[:-1], 8 * word_count(bits.shape[-1])), dtype=np.uint8)
    padded[..., : packed.shape[-1]] = packed
    return padded.view("<u8").astype(np.uint64, copy=False)


def unpack(words: Words, samples: int) -> Bits:
    """Booleans (..., samples) of words (..., words)."""
    as_bytes = np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
    return np.unpackbits(as_bytes, axis=-1, count=samples, bitorder="little").view(bool)


def full_mask(samples: int) -> Words:
    """Words (words,) with the bit of every sample set."""
    return pack(np.ones(samples, dtype=bool))


def count(words: Words) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(words).sum(dtype=np.int64))


def row_counts(words: Words) -> Counts:
    """How many bits are set in each row (rows,) of words (rows, words)."""
    ones = np.full((1, words.shape[1]), np.iinfo(np.uint64).max, dtype=np.uint64)
    return and_counts(words, ones)[0]


def and_counts(words: Words, masks: Words) -> Counts:
    """How many bits each row of words (rows, words) shares with each mask (masks, words), as (masks, rows).

    Rows are taken in blocks that stay in the cache while all masks pass over them.
    """
    rows, width = words.shape
    result = np.zeros((len(masks), rows), dtype=np.int64)
    step = max(1, _TILE // max(width, 1))
    shared = np.empty((min(step, rows), width), dtype=np.uint64)
    ones = np.empty(shared.shape, dtype=np.uint8)
    wide = np.uint32 if width < 1 << 26 else np.int64
    for start in range(0, rows, step):
        block = words[start : start + step]
        for number, mask in enumerate(masks):
            np.bitwise_and(block, mask, out=shared[: len(block)])
            counted = np.bitwise_count(shared[: len(block)], out=ones[: len(block)])
            result[number, start : start + step] = counted.sum(axis=1, dtype=wide)
    return result


def joined(first: Words, samples: int, second: Words, *, total: int) -> Words:
    """Words (..., words) of `samples` samples followed by others, `total` samples in all."""
    words = np.zeros((*first.shape[:-1], word_count(total)), dtype=np.uint64)
    start, shift = divmod(samples, WORD)
    words[..., : first.shape[-1]] = first
    words[..., start : start + second.shape[-1]] |= second << np.uint64(shift)
    if shift:
        over = words[..., start + 1 :]
        over |= (second >> np.uint64(WORD - shift))[..., : over.shape[-1]]
    return words
