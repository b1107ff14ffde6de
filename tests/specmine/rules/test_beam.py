"""The beam finds what few literals can say: against enumeration, by hand, and on bad input."""

from itertools import combinations

import numpy as np
import pytest

from specmine.errors import BadConfig, BadData
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, pack
from specmine.rules.beam import best_bodies, best_body


def table_of(bits) -> PredicateTable:
    bits = np.asarray(bits, dtype=bool)
    predicates = tuple(Predicate("active", ("h1", row)) for row in range(len(bits)))
    return PredicateTable(predicates, pack(bits), bits.shape[1])


def f1_of(bits, rows, positives) -> float:
    held = np.logical_and.reduce([bits[row] for row in rows]) if rows else np.ones(bits.shape[1], dtype=bool)
    return 2 * (held & positives).sum() / (held.sum() + positives.sum())


def test_two_literals_by_hand():
    bits = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]], dtype=bool)
    found = best_body(table_of(bits), np.array([1, 1, 0, 0, 0, 0], dtype=bool))
    assert set(found.rows) == {0, 1} and found.f1 == 1.0


@pytest.mark.parametrize("seed", range(8))
def test_wide_beam_is_as_good_as_enumeration(seed):
    generator = np.random.default_rng(seed)
    bits = generator.random((9, 150)) < 0.7
    positives = bits[seed % 9] & bits[(seed + 3) % 9] & (generator.random(150) < 0.9)
    found = best_body(table_of(bits), positives, max_body=3, width=200)
    best = max(f1_of(bits, rows, positives) for size in (0, 1, 2, 3) for rows in combinations(range(9), size))
    assert found.f1 == pytest.approx(f1_of(bits, found.rows, positives))
    assert found.f1 >= best - 0.02 and len(found.rows) <= 3


def test_more_literals_never_hurt():
    generator = np.random.default_rng(5)
    bits = generator.random((40, 300)) < 0.8
    positives = generator.random(300) < 0.2
    scores = [best_body(table_of(bits), positives, max_body=size).f1 for size in (1, 2, 4, 8)]
    assert scores == sorted(scores)


def test_screening_keeps_the_telling_predicates():
    generator = np.random.default_rng(1)
    positives = generator.random(400) < 0.3
    bits = generator.random((300, 400)) < 0.5
    bits[123] = positives | (generator.random(400) < 0.3)
    bits[200] = positives | (generator.random(400) < 0.3)
    found = best_body(table_of(bits), positives, max_body=2, screened=20)
    assert set(found.rows) == {123, 200}


def test_nothing_helps():
    table = table_of(np.zeros((2, 5), dtype=bool))
    assert best_body(table, np.ones(5, dtype=bool)).rows == ()


def test_bad_input():
    table = table_of(np.ones((2, 5), dtype=bool))
    with pytest.raises(BadConfig, match="max_body, width and screened must be at least 1, got 0, 4"):
        best_body(table, np.ones(5, dtype=bool), max_body=0)
    with pytest.raises(BadData, match="at least one positive"):
        best_body(table, np.zeros(5, dtype=bool))
    with pytest.raises(BadData, match=r"Boolean mask of shape \(5,\)"):
        best_body(table, np.ones(4, dtype=bool))


def test_bodies_cover_what_those_before_them_leave_out():
    """Two literals each hold on half of the positives; a third holds everywhere but on one negative."""
    bits = np.array([np.arange(12) // 2 == 0, np.arange(12) // 2 == 1, np.arange(12) < 11])
    positives = np.arange(12) < 4
    found = best_bodies(table_of(bits), positives, ~positives, most=5, max_body=2, precision=0.9)
    assert [set(body.rows) for body in found] == [{0}, {1}]
    assert len(best_bodies(table_of(bits), positives, ~positives, most=1, max_body=2)) == 1
    assert best_bodies(table_of(bits[2:]), positives, ~positives, most=5, precision=0.9) == []
    assert best_bodies(table_of(bits[:0]), positives, ~positives, most=5) == []
