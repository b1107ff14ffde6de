"""Z3 as an engine: verdicts by hand, replayed models, size limits and the clock."""

import time
from fractions import Fraction

import numpy as np
import pytest
from laws.networks import KINDS, Weights, chain
from laws.queries import random_query

from verifier.check import confirms
from verifier.engines.falsify import falsify
from verifier.engines.smt import decide_smt, shrunk
from verifier.formula import And, Or, at_least, at_most, atom
from verifier.ops import Linear, Power, Relu, Sigmoid
from verifier.query import Query
from verifier.region import Ball, Box
from verifier.verdict import Proved, Refuted, Unknown


def line() -> Query:
    """relu(x) on [-1, 1]."""
    return Query(chain((1, 1), Linear(np.eye(1), np.zeros(1)), Relu()), Box([-1.0], [1.0]), at_least("v2", 0, 1))


def test_ties_by_hand() -> None:
    query = line()
    reached = decide_smt(query, timeout_s=5).verdict
    assert isinstance(reached, Refuted) and reached.counterexample.tolist() == [1.0]
    beyond = decide_smt(Query(query.network, query.region, at_least("v2", 0, 1, strict=True)), timeout_s=5)
    assert isinstance(beyond.verdict, Proved) and beyond.verdict.certificate is None and beyond.engine == "smt"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20, 24))
def test_never_contradicts_the_search(kind: str, seed: int) -> None:
    query = random_query(kind, seed=seed)
    verdict = decide_smt(query, timeout_s=10).verdict
    found = falsify(query, timeout_s=0.15)
    assert not isinstance(verdict, Unknown)
    assert isinstance(verdict, Refuted) or isinstance(found, Unknown)
    if isinstance(verdict, Refuted):
        assert confirms(query, verdict.counterexample)


def test_a_point_that_no_float_hits_is_unconfirmed() -> None:
    query = line()
    third = And((at_least("v1", 0, Fraction(1, 3)), at_most("v1", 0, Fraction(1, 3))))
    verdict = decide_smt(Query(query.network, query.region, third), timeout_s=5).verdict
    assert isinstance(verdict, Unknown) and verdict.reason == "unconfirmed" and "(1/3)" in verdict.detail


def test_a_model_on_a_face_is_moved_inside() -> None:
    """3 x0 <= 1 and 3 x0 + x1 >= 1: the vertex (1/3, 0) is no float, its neighbourhood is wide."""
    network = chain((1, 2), Relu())
    assertion = And((atom({("v1", 0): 3}, -1, strict=True), atom({("v1", 0): -3, ("v1", 1): -1}, 1)))
    query = Query(network, Box([0.0, 0.0], [1.0, 1.0]), assertion)
    verdict = decide_smt(query, timeout_s=5).verdict
    assert isinstance(verdict, Refuted) and confirms(query, verdict.counterexample)


def test_ball_bounds_are_exact() -> None:
    """The largest x of the ball is the rational 0.3 + 0.1, just off the float 0.4."""
    edge = Fraction(0.3) + Fraction(0.1)
    network = line().network
    region = Ball([0.3], 0.1, Box([0.0], [1.0]))
    assert isinstance(decide_smt(Query(network, region, at_least("v2", 0, edge, strict=True)), timeout_s=5).verdict, Proved)
    assert isinstance(decide_smt(Query(network, region, at_least("v2", 0, edge)), timeout_s=5).verdict, Unknown | Refuted)


def test_shrunk_tightens_every_atom() -> None:
    formula = Or((atom({("y", 0): -4}, 1), And((at_most("y", 1, 2),))))
    assert shrunk(formula, Fraction(1, 2)) == Or((atom({("y", 0): -4}, 3), And((at_most("y", 1, Fraction(3, 2)),))))


def test_large_networks_are_refused_with_the_reason() -> None:
    w = Weights(0, grid=True)
    network = chain((1, 2), w.linear(2, 500), Relu(), Linear(np.ones((1, 500)), np.zeros(1)))
    verdict = decide_smt(Query(network, Box([0.0, 0.0], [1.0, 1.0]), at_least("v3", 0, 0)), timeout_s=5).verdict
    assert isinstance(verdict, Unknown) and verdict.reason == "unsupported" and "depends on 500 activations" in verdict.detail
    small = decide_smt(Query(network, Box([0.0, 0.0], [1.0, 1.0]), at_least("v2", 0, 0)), timeout_s=5).verdict
    assert isinstance(small, Refuted)


def test_transcendental_functions_are_unsupported() -> None:
    verdict = decide_smt(Query(chain((1, 1), Sigmoid()), Box([-1.0], [1.0]), at_least("v1", 0, 2)), timeout_s=5).verdict
    assert isinstance(verdict, Unknown) and verdict.reason == "unsupported" and "operator Sigmoid" in verdict.detail


def test_products_are_decided() -> None:
    """x * x >= 2 on [-1, 1] is proved false; on [1, 2] it is met from an irrational point on."""
    network = chain((1, 1), Power(2))
    assert isinstance(decide_smt(Query(network, Box([-1.0], [1.0]), at_least("v1", 0, 2)), timeout_s=5).verdict, Proved)
    query = Query(network, Box([1.0], [2.0]), at_least("v1", 0, 2))
    verdict = decide_smt(query, timeout_s=5).verdict
    assert isinstance(verdict, Refuted) and confirms(query, verdict.counterexample)
    exactly = And((at_least("v1", 0, 2), at_most("v1", 0, 2)))
    verdict = decide_smt(Query(network, Box([1.0], [2.0]), exactly), timeout_s=5).verdict
    assert isinstance(verdict, Unknown) and verdict.reason == "unconfirmed"


def test_the_clock_is_kept() -> None:
    w = Weights(1, grid=False)
    network = chain((1, 20), w.linear(20, 60), Relu(), w.linear(60, 60), Relu(), w.linear(60, 2))
    query = Query(network, Box(-np.ones(20), np.ones(20)), at_least("v5", 0, 700))
    start = time.process_time()
    verdict = decide_smt(query, timeout_s=1.0).verdict
    assert time.process_time() - start < 3.0, "at most two seconds past the limit, other processes not counted"
    assert isinstance(verdict, Unknown) and verdict.reason == "timeout"
