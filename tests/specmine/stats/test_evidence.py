"""Evidence of clauses against counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specmine.errors import BadClause, BadData
from specmine.predicates.predicate import Predicate
from specmine.rules.clause import HornClause
from specmine.stats import body_bits, evidence_of, fill_q, fisher_p, measure, wilson
from specmine.tracing import Sites, trace
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

LAYER = Linear(np.eye(2), np.zeros(2))
NETWORK = Network("in", (1, 2), (Node("a", LAYER, ("in",)), Node("b", Relu(), ("a",)), Node("c", LAYER, ("b",))), "c")
X = np.array([[3, 1], [2, 1], [1, 1], [0, 1], [2, 3], [5, 0], [4, 4], [1, 0]], dtype=float)
SPLIT = np.array([0, 0, 0, 0, 1, 1, 1, 2])
TRACE = trace(Sites(NETWORK), X)
CLAUSE = HornClause(Predicate("class", (0,)), (Predicate("above", ("h1", 0, 1.0)),))


def test_by_hand():
    evidence = measure([CLAUSE], TRACE, SPLIT)[0]
    mine = evidence.mine
    assert (mine.samples, mine.positives, mine.support, mine.errors) == (4, 2, 3, 1)
    assert mine.precision == 2 / 3 and mine.recall == 1.0 and mine.lift == pytest.approx(4 / 3)
    assert mine.precision_interval == wilson(2, 3) and mine.recall_interval == wilson(2, 2)
    assert mine.p == fisher_p(samples=4, positives=2, support=3, hits=2) and mine.q is None
    assert (evidence.holdout.support, evidence.holdout.errors) == (3, 2)
    assert (evidence.test.samples, evidence.test.support, evidence.test.errors) == (1, 1, 0)


def test_a_tie_is_an_error():
    body = (Predicate("within", ("h1", 0, 1.0, 1.0)), Predicate("within", ("h1", 1, 1.0, 1.0)))
    for label in (0, 1):
        assert measure([HornClause(Predicate("class", (label,)), body)], TRACE, SPLIT)[0].mine.errors == 1


def test_false_as_head():
    mine = measure([HornClause(None, CLAUSE.body)], TRACE, SPLIT)[0].mine
    assert (mine.positives, mine.support, mine.errors) == (0, 3, 3)
    assert mine.precision == 0.0 and mine.recall is None and mine.lift is None and mine.p == 1.0


def test_empty_body_holds_everywhere():
    mine = measure([HornClause(CLAUSE.head, ())], TRACE, SPLIT)[0].mine
    assert (mine.support, mine.errors, mine.lift, mine.p) == (4, 2, 1.0, 1.0)


def test_no_support_and_no_samples():
    body = (Predicate("above", ("h1", 0, 100.0)),)
    evidence = measure([HornClause(CLAUSE.head, body)], TRACE, np.zeros(8))[0]
    assert evidence.mine.precision is None and evidence.mine.precision_interval == (0.0, 1.0) and evidence.mine.recall == 0.0
    empty = evidence.test
    assert (empty.samples, empty.precision, empty.recall, empty.lift, empty.p) == (0, None, None, None, 1.0)


def test_head_bits_take_the_place_of_the_head():
    head = np.ones(8, dtype=bool)
    assert evidence_of(body_bits([CLAUSE], TRACE)[0], head, SPLIT).mine.errors == 0


@given(hnp.arrays(bool, (2, 50)), hnp.arrays(np.int8, 50, elements=st.integers(0, 2)))
def test_counts_equal_counting_one_by_one(truth, split):
    evidence = evidence_of(truth[0], truth[1], split)
    for part, found in enumerate((evidence.mine, evidence.holdout, evidence.test)):
        rows = [(bool(b), bool(h)) for b, h, s in zip(*truth, split, strict=True) if s == part]
        assert found.samples == len(rows)
        assert found.support == sum(b for b, _ in rows) and found.positives == sum(h for _, h in rows)
        assert found.errors == sum(b and not h for b, h in rows)


def test_q_counts_every_candidate():
    evidence = measure([CLAUSE, HornClause(CLAUSE.head, ())], TRACE, SPLIT)
    filled = fill_q(evidence, tried=10)
    assert filled[0].mine.q == min(1.0, evidence[0].mine.p * 10) and filled[1].mine.q == 1.0
    assert filled[0].holdout.q is not None and filled[0].test.q is not None


def test_bad_input():
    with pytest.raises(BadData, match="must speak of the same samples"):
        measure([CLAUSE], TRACE, SPLIT[:3])
    with pytest.raises(BadClause, match="is not in this trace"):
        measure([HornClause(None, (Predicate("active", ("z1", 0)),))], TRACE, SPLIT)
