"""Pair counts against counting Booleans, by popcount and by matrix product."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmine.predicates.counting import mask_counts, pair_counts, shared_counts
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable
from specmine.predicates.words import full_mask, pack


def table_of(values) -> PredicateTable:
    return PredicateTable(tuple(Predicate("active", ("h1", row)) for row in range(len(values))), pack(values), values.shape[1])


@pytest.mark.parametrize("device", [None, "cpu"])
@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 300), st.integers(0, 2**32))
def test_shared_counts(device, rows, others, samples, seed):
    first, second = (np.random.default_rng(seed).random((n, samples)) < 0.4 for n in (rows, others))
    expected = first.astype(int) @ second.T.astype(int)
    assert (shared_counts(pack(first), pack(second), device=device) == expected).all()


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("rows", [3, 200, 1100])
def test_pair_counts_pass_every_block_size(device, rows):
    draw = np.random.default_rng(rows)
    values = draw.random((1500, 9000)) < 0.3
    a, b = draw.integers(0, 1500, size=rows), draw.integers(0, 1500, size=400)
    expected = values[a].astype(np.float32) @ values[b].T.astype(np.float32)
    assert (pair_counts(table_of(values), a, b, device=device) == expected).all()


def test_more_words_than_a_tile():
    values = np.random.default_rng(0).random((3, 64 * 5000)) < 0.5
    table = table_of(values)
    expected = values.astype(int) @ values.T.astype(int)
    assert (pair_counts(table, np.arange(3), np.arange(3)) == expected).all()
    assert (
        mask_counts(table, np.stack([full_mask(table.samples), table.bits[1]]))
        == expected[[0, 1]] * [[0], [1]] + values.sum(axis=1) * [[1], [0]]
    ).all()
