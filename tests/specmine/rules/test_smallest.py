from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.errors import BadConfig, BadData
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, pack
from specmine.rules.smallest import smallest_bodies, smallest_body


def table(bits):
    bits = np.array(bits, dtype=bool)
    return PredicateTable(tuple(Predicate("active", ("h1", i)) for i in range(len(bits))), pack(bits), bits.shape[1])


def admissible(bits, body, positives, recall, precision):
    held = bits[list(body)].all(axis=0)
    hits, errors = int((held & positives).sum()), int((held & ~positives).sum())
    kept = hits >= recall * positives.sum() - 1e-9
    return kept and hits > 0 and hits >= precision * (hits + errors) - 1e-9


def brute_force(bits, positives, recall, precision, longest):
    for size in range(longest + 1):
        for body in combinations(range(len(bits)), size):
            if admissible(bits, body, positives, recall, precision):
                return size
    return None


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 40),
    st.sampled_from([1.0, 0.9, 0.75, 0.5, 0.2]),
    st.sampled_from([1.0, 0.9, 0.7, 0.5]),
    st.sampled_from([None, 1, 2, 4]),
)
def test_as_small_as_brute_force(seed, predicates, samples, recall, precision, longest):
    generator = np.random.default_rng(seed)
    positives = generator.random(samples) < 0.5
    positives[0] = True
    rates = np.where(positives, generator.choice([0.8, 0.95, 1.0]), generator.choice([0.3, 0.6, 0.9]))
    bits = generator.random((predicates, samples)) < rates
    result = smallest_body(
        table(bits), positives, ~positives, recall=recall, precision=precision, max_body=longest, timeout_s=30
    )
    expected = brute_force(bits, positives, recall, precision, predicates if longest is None else longest)
    assert result.found == (expected is not None), result
    if expected is not None:
        assert admissible(bits, result.body, positives, recall, precision)
        assert result.optimal and result.size == result.lower_bound == expected
    held = bits[list(result.body)].all(axis=0)
    assert result.recall == (held & positives).sum() / positives.sum()
    assert result.errors == (held & ~positives).sum()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(4, 20), st.sampled_from([1.0, 0.75, 0.5]))
def test_further_bodies_are_as_small_as_brute_force(seed, predicates, samples, recall):
    generator = np.random.default_rng(seed)
    positives = generator.random(samples) < 0.5
    positives[0] = True
    bits = generator.random((predicates, samples)) < np.where(positives, 0.9, 0.4)
    found = smallest_bodies(table(bits), positives, ~positives, count=4, recalls=[recall])
    left = [
        set(body)
        for size in range(predicates + 1)
        for body in combinations(range(predicates), size)
        if admissible(bits, body, positives, recall, 1.0)
    ]
    for result in found:
        assert result.optimal and result.size == min(map(len, left)) and set(result.body) in left
        # Predicates that agree on every sample count as one, so bodies of the same columns count as found.
        left = [body for body in left if not columns(bits, result.body) <= columns(bits, body)]
    assert len(found) == 4 or not left


def columns(bits, body):
    return {bits[place].tobytes() for place in body}


def test_misses_that_overlap_are_counted_once():
    positives = np.array([1, 1, 1, 1, 0, 0], dtype=bool)
    bits = [[0, 1, 1, 1, 0, 1], [0, 1, 1, 1, 1, 0]]
    result = smallest_body(table(bits), positives, ~positives, recall=0.75)
    assert result.body == (0, 1) and result.optimal and result.recall == 0.75


def test_where_nothing_excludes_a_negative_the_best_and_the_reason_come_back():
    positives = np.array([1, 1, 0, 0, 0], dtype=bool)
    result = smallest_body(table([[1, 1, 0, 1, 1], [1, 1, 0, 0, 1]]), positives, ~positives, recall=1.0)
    assert not result.found and not result.optimal and result.body == (1,) and result.errors == 1
    assert "1 negatives satisfy every predicate" in result.reason and "recall 1.0000 and 1 errors" in result.reason


def test_no_candidates_at_all():
    positives = np.array([1, 0], dtype=bool)
    empty = PredicateTable((), np.zeros((0, 1), dtype=np.uint64), 2)
    assert not smallest_body(empty, positives, ~positives, recall=1.0).found
    assert smallest_body(empty, positives, np.zeros(2, dtype=bool), recall=1.0).body == ()


def test_time_runs_out_with_an_honest_answer():
    generator = np.random.default_rng(0)
    positives = np.arange(3000) < 1500
    bits = generator.random((400, 3000)) < np.where(positives, 0.97, 0.75)
    result = smallest_body(table(bits), positives, ~positives, recall=0.5, timeout_s=1.0)
    assert result.seconds < 5 and not result.optimal
    assert "time ran out" in result.reason
    if result.found:
        assert result.lower_bound < result.size and result.errors == 0 and result.recall >= 0.5


def test_the_same_twice():
    generator = np.random.default_rng(1)
    positives = np.arange(200) < 80
    bits = generator.random((24, 200)) < np.where(positives, 0.99, 0.5)
    first, second = (smallest_body(table(bits), positives, ~positives, recall=0.9, seed=3) for _ in range(2))
    assert first.found and (first.body, first.rounds) == (second.body, second.rounds)


def test_many_bodies_differ():
    generator = np.random.default_rng(2)
    positives = np.arange(200) < 100
    bits = generator.random((60, 200)) < np.where(positives, 0.995, 0.4)
    t = table(bits)
    bodies = smallest_bodies(t, positives, ~positives, count=5, recalls=[0.9])
    assert len(bodies) == 5
    for first, second in combinations([set(result.body) for result in bodies], 2):
        assert not first <= second
    assert [result.size for result in bodies] == sorted(result.size for result in bodies)
    apart = smallest_bodies(t, positives, ~positives, count=3, recalls=[0.95, 0.9, 0.8], disjoint=True)
    assert len(apart) == 3 and len({row for result in apart for row in result.body}) == sum(r.size for r in apart)


def test_bad_input():
    t, mask = table([[1, 0]]), np.array([True, False])
    with pytest.raises(BadConfig, match=r"recall must be above 0 and at most 1, got 1\.5"):
        smallest_body(t, mask, ~mask, recall=1.5)
    with pytest.raises(BadConfig, match="timeout_s must be above 0"):
        smallest_body(t, mask, ~mask, recall=1, timeout_s=0)
    with pytest.raises(BadData, match="1 samples are both positive and negative"):
        smallest_body(t, mask, mask, recall=1)
    with pytest.raises(BadData, match="at least one positive"):
        smallest_body(t, np.zeros(2, dtype=bool), mask, recall=1)
