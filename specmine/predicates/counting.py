"""Counts of samples that satisfy two things at once: AND and popcount, or a product of 0-1 matrices on a device of torch.

On a processor the popcount is the faster of the two up to some 500 rows on either side, and no slower beyond.
"""

from typing import TypeAlias

import numpy as np
import torch

from specmine.predicates.form import Rows
from specmine.predicates.table import Table, tiles
from specmine.predicates.words import Counts, Words, and_counts

Device: TypeAlias = str | torch.device

_DEVICE_ROWS = 4096
_DEVICE_WORDS = 128
_ROWS = 1024


def pair_counts(table: Table, rows_a: Rows, rows_b: Rows, *, device: Device | None = None) -> Counts:
    """How many samples (len(rows_a), len(rows_b)) satisfy both predicates of each pair of rows.

    device: where torch multiplies the bits as matrices, such as "cuda"; by default the processor counts words.
    """
    rows_a, rows_b = np.asarray(rows_a, dtype=np.int64), np.asarray(rows_b, dtype=np.int64)
    result = np.zeros((len(rows_a), len(rows_b)), dtype=np.int64)
    for start in range(0, len(rows_a), _ROWS):
        some = rows_a[start : start + _ROWS]
        held: tuple[slice, Words] = slice(0, 0), np.empty((0, 0), dtype=np.uint64)
        for chosen, part, words in tiles(table, rows_b, grain=_grain(table, device)):
            held = held if held[0] == part else (part, table.words(some, part))
            result[start : start + _ROWS, chosen] += shared_counts(held[1], words, device=device)
    return result


def mask_counts(table: Table, masks: Words, *, device: Device | None = None) -> Counts:
    """How many samples (masks, predicates) of each mask (masks, words) satisfy each predicate."""
    result = np.zeros((len(masks), len(table.predicates)), dtype=np.int64)
    for chosen, part, words in tiles(table, grain=_grain(table, device)):
        result[:, chosen] += shared_counts(masks[:, part], words, device=device)
    return result


def shared_counts(first: Words, second: Words, *, device: Device | None = None) -> Counts:
    """How many bits (len(first), len(second)) each row of words (rows, words) shares with each row of others."""
    if device is not None:
        return _product(first, second, torch.device(device))
    return and_counts(second, first) if len(first) <= len(second) else and_counts(first, second).T


def _grain(table: Table, device: Device | None) -> int:
    return table.grain if device is None else _DEVICE_ROWS


def _product(first: Words, second: Words, device: torch.device) -> Counts:
    total = torch.zeros((len(first), len(second)), dtype=torch.int64, device=device)
    for start in range(0, first.shape[1], _DEVICE_WORDS):
        part = slice(start, start + _DEVICE_WORDS)
        # Products of 0 and 1, and sums of 8192 of them, are exact in any floating-point format that a device multiplies in.
        total += (_unpacked(first[:, part], device) @ _unpacked(second[:, part], device).T).long()
    return total.cpu().numpy()


def _unpacked(words: Words, device: torch.device) -> torch.Tensor:
    """Zeros and ones (rows, samples) as float32."""
    eights = torch.from_numpy(np.ascontiguousarray(words).view(np.uint8)).to(device)
    places = torch.arange(8, dtype=torch.uint8, device=device)
    return ((eights[:, :, None] >> places) & 1).flatten(1).float()
