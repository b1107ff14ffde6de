"""Chains and shrinking against monotone judges whose smallest answers are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, pack
from specmine.rules.chain import chain_of, shortest_prefix, shrink


def always():
    return True


class Monotone:
    """A body is valid where it contains one of the cores."""

    def __init__(self, *cores):
        self.cores, self.asked = [set(core) for core in cores], 0

    def __call__(self, bodies):
        self.asked += len(bodies)
        return [any(core <= set(body) for core in self.cores) for body in bodies]


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(40)), st.sets(st.integers(0, 39), max_size=5))
def test_the_shortest_prefix_is_found(chain, core):
    judge = Monotone(core)
    found = shortest_prefix(tuple(chain), judge, always)
    needed = max((chain.index(row) + 1 for row in core), default=0)
    assert found == tuple(chain[:needed])
    assert judge.asked <= 30


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.integers(0, 59), min_size=1, max_size=60),
    st.lists(st.sets(st.integers(0, 59), max_size=6), min_size=1, max_size=3),
)
def test_shrinking_ends_in_a_valid_body_that_can_spare_no_literal(body, cores):
    cores = [core & body for core in cores]
    judge = Monotone(*cores)
    left = set(shrink(tuple(sorted(body)), judge, always))
    assert left <= body and judge([left]) == [True]
    assert not any(judge([left - {row}])[0] for row in left)


def test_the_least_worthy_literals_go_first():
    keep = np.array([5.0, 1.0, 5.0, 0.0])
    assert shrink((0, 1, 2, 3), Monotone({0, 2}, {1, 3}), always, keep=keep) == (0, 2)


def test_open_answers_are_no_proofs():
    assert shortest_prefix((0, 1), lambda bodies: [None] * len(bodies), always) is None
    assert shrink((0, 1), lambda bodies: [None] * len(bodies), always) == (0, 1)


def test_when_the_time_ends_the_body_is_valid_still():
    left = iter([True] * 3 + [False] * 100)
    judge = Monotone({3})
    body = shrink(tuple(range(30)), judge, lambda: next(left))
    assert judge([body]) == [True] and len(body) > 1
    assert shortest_prefix((3,), judge, lambda: False) is None


@pytest.mark.parametrize("required", [0, 3, 5])
def test_a_chain_keeps_the_recall(required):
    bits = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 1], [1, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1]], dtype=bool)
    table = PredicateTable(tuple(Predicate("active", ("h1", i)) for i in range(4)), pack(bits), 6)
    positives = np.array([1, 1, 1, 1, 1, 0], dtype=bool)
    chain = chain_of(table, pack(positives), [1, 0, 2, 3], required=required)
    held = bits[list(chain)].all(axis=0)
    assert (held & positives).sum() >= required
    assert chain == {0: (1, 0, 2, 3), 3: (0, 2, 3), 5: (0, 3)}[required]
    assert chain_of(table, pack(positives), [0, 3], required=2, start=(1,)) == (1, 0, 3)
