"""Planted counterexamples are found, and nothing is reported that an independent exact replay does not confirm."""

import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from laws.networks import Weights, chain, random_network
from laws.queries import random_query

from verifier.engines import attack
from verifier.engines.falsify import falsify, falsify_many
from verifier.errors import BadQuery
from verifier.evaluate import evaluate
from verifier.formula import FALSE, TRUE, And, at_least, at_most, atom, holds
from verifier.network import Network
from verifier.ops import Linear, Relu, Reshape
from verifier.query import Query
from verifier.region import Ball, Box, Polytope, constraints, exact_bounds
from verifier.verdict import Refuted, Unknown


def exact_values(network: Network, x: np.ndarray) -> dict[str, list[Fraction]]:
    """Every value of a network of Linear, Relu and Reshape, in rationals, flat."""
    values = {network.input: [Fraction(v) for v in x.tolist()]}
    for node in network.nodes:
        entries = values[node.inputs[0]]
        match node.op:
            case Linear(weight=weight, bias=bias):
                pairs = zip(weight.tolist(), bias.tolist(), strict=True)
                values[node.output] = [
                    sum((Fraction(w) * v for w, v in zip(row, entries, strict=True)), Fraction(b)) for row, b in pairs
                ]
            case Relu():
                values[node.output] = [max(v, Fraction(0)) for v in entries]
            case Reshape():
                values[node.output] = entries
            case _:
                raise AssertionError(f"{node.op} has no rule here")
    return values


def satisfied(query: Query, x: np.ndarray) -> bool:
    lower, upper = exact_bounds(query.region)
    inside = all(lo <= Fraction(v) <= hi for lo, v, hi in zip(lower, x.tolist(), upper, strict=True))
    return inside and holds(And((*constraints(query.region), query.assertion)), exact_values(query.network, x))


def wide(seed: int = 0, inputs: int = 30) -> Network:
    w = Weights(seed, grid=False)
    return chain((1, inputs), w.linear(inputs, 40), Relu(), w.linear(40, 40), Relu(), w.linear(40, 5))


@pytest.mark.parametrize("seed", range(8))
def test_a_planted_counterexample_with_a_hidden_premise_is_found(seed: int) -> None:
    """The premise holds the phases of ten neurons at a secret point, the goal what the output does there, less a little."""
    network = wide(seed)
    secret = np.random.default_rng(seed).uniform(-1, 1, (1, 30))
    values = {name: v.flatten().tolist() for name, v in evaluate(network, secret).items()}
    phases = [at_least("v1", k, 0) if values["v1"][k] > 0 else at_most("v1", k, 0) for k in range(10)]
    goal = atom({("v5", 0): -1, ("v5", 1): 1}, values["v5"][0] - values["v5"][1] - 1)
    query = Query(network, Box(-np.ones(30), np.ones(30)), And((*phases, goal)))
    verdict = falsify(query, seed=seed, timeout_s=10)
    assert isinstance(verdict, Refuted) and satisfied(query, verdict.counterexample)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_reported_is_confirmed_independently(seed: int) -> None:
    query = random_query("mlp" if seed % 2 else "deep", seed=seed)
    verdict = falsify(query, timeout_s=0.15)
    assert isinstance(verdict, Unknown) or satisfied(query, verdict.counterexample)


def test_a_needle_is_found_from_a_given_start_only() -> None:
    """A spike of width 1e-4 around 0.123 in 15 inputs, on a plateau without slopes."""
    at, n, steep = 0.123, 15, 1e4
    ends = np.concatenate([np.full(n, -at), np.full(n, at)])
    distance = Linear(steep * np.concatenate([np.eye(n), -np.eye(n)]), steep * ends)
    both = np.concatenate([np.eye(n), np.eye(n)], axis=1)
    beyond = Linear(np.concatenate([both, both]), np.concatenate([np.zeros(n), -np.ones(n)]))
    near = Linear(np.concatenate([-np.ones((1, n)), np.ones((1, n))], axis=1), np.ones(1))  # 1 - sum of min(distance, 1)
    network = chain((1, n), distance, Relu(), beyond, Relu(), near, Relu())
    query = Query(network, Box(np.zeros(n), np.ones(n)), at_least("v6", 0, 0.5))
    assert isinstance(falsify(query, timeout_s=5, starts=np.full((1, n), at)), Refuted)
    assert isinstance(falsify(query, timeout_s=0.3), Unknown)


def test_starts_outside_the_region_are_projected() -> None:
    network = chain((1, 20), Linear(np.ones((1, 20)), np.zeros(1)))
    query = Query(network, Ball(np.zeros(20), 0.5, Box(-np.ones(20), np.ones(20))), at_least("v1", 0, 10))
    verdict = falsify(query, starts=np.full((1, 20), 7.0))
    assert isinstance(verdict, Refuted) and verdict.counterexample.tolist() == [0.5] * 20


@pytest.mark.parametrize(("strict", "kind"), [(False, Refuted), (True, Unknown)])
def test_a_tie_at_a_corner(strict: bool, kind: type) -> None:
    network = chain((1, 3), Linear(np.array([[1.0, -2.0, 3.0]]), np.zeros(1)), Relu())
    query = Query(network, Box(-np.ones(3), np.ones(3)), at_least("v2", 0, 6, strict=strict))
    assert isinstance(falsify(query, timeout_s=0.5), kind)


def test_within_rounding_is_unconfirmed() -> None:
    """x <= 1/3 and x >= 1/3 hold at no float, on a hidden value where the box cannot tell."""
    network = chain((1, 1), Linear(np.eye(1), np.zeros(1)))
    third = And((at_least("v1", 0, Fraction(1, 3)), at_most("v1", 0, Fraction(1, 3))))
    query = Query(network, Box([0.0], [1.0]), third)
    verdict = falsify(query, timeout_s=5, starts=np.array([[1 / 3]]))
    assert isinstance(verdict, Unknown) and verdict.reason == "unconfirmed"


def test_equalities_on_inputs_are_met_exactly() -> None:
    network = wide()
    fixed = [side for k in range(10) for side in (at_least("x", k, 0.25), at_most("x", k, 0.25))]
    query = Query(network, Box(-np.ones(30), np.ones(30)), And((*fixed, at_least("v5", 0, -5))))
    verdict = falsify(query, timeout_s=5)
    assert (
        isinstance(verdict, Refuted)
        and (verdict.counterexample[:10] == 0.25).all()
        and satisfied(query, verdict.counterexample)
    )


def test_polytope_constraints_are_kept() -> None:
    network = wide()
    plane = atom({("x", k): 1 for k in range(30)}, 5)
    query = Query(network, Polytope(Box(-np.ones(30), np.ones(30)), (plane,)), at_least("v5", 0, 0))
    verdict = falsify(query, timeout_s=5)
    assert isinstance(verdict, Refuted) and satisfied(query, verdict.counterexample)


@pytest.mark.parametrize(("assertion", "kind"), [(TRUE, Refuted), (FALSE, Unknown), (atom({}, 0, strict=True), Unknown)])
def test_formulas_without_values(assertion, kind: type) -> None:
    query = Query(wide(), Box(-np.ones(30), np.ones(30)), assertion)
    assert isinstance(falsify(query), kind)


def test_a_region_without_floats_is_unknown() -> None:
    network = chain((1, 1), Relu())
    between = And((atom({("x", 0): 3}, -1), atom({("x", 0): -3}, 1)))
    assert isinstance(falsify(Query(network, Box([0.0], [1.0]), between)), Unknown)


def test_many_agree_with_one_by_one_and_know_their_own_region() -> None:
    network = wide()
    rng = np.random.default_rng(0)
    domain = Box(-np.ones(30), np.ones(30))
    queries = [
        Query(network, Ball(rng.uniform(-1, 1, 30), 0.1, domain) if k % 2 else domain, at_least("v5", k % 5, level))
        for k, level in enumerate(rng.uniform(-60, 60, 40))
    ]
    verdicts = falsify_many(queries, timeout_s=20)
    for query, verdict in zip(queries, verdicts, strict=True):
        assert isinstance(verdict, Unknown) or satisfied(query, verdict.counterexample)
    assert 10 <= sum(isinstance(v, Refuted) for v in verdicts) < 40
    alone = [falsify(query, timeout_s=5) for query in queries[:6]]
    assert [type(v) for v in alone] == [type(v) for v in verdicts[:6]]


def test_several_networks_at_once() -> None:
    queries = [random_query(kind, seed=2) for kind in ("mlp", "residual", "conv1d")]
    verdicts = falsify_many(queries, timeout_s=200)
    assert [type(v) for v in verdicts] == [type(falsify(query, timeout_s=200)) for query in queries]


def test_the_same_seed_gives_the_same_point() -> None:
    query = Query(random_network("conv2d", seed=1), Box(-np.ones(18), np.ones(18)), at_least("v6", 0, 3))
    first, again, other = (falsify(query, seed=s, timeout_s=20) for s in (1, 1, 2))
    assert isinstance(first, Refuted) and isinstance(again, Refuted)
    assert first.counterexample.tolist() == again.counterexample.tolist()
    assert isinstance(other, Refuted)


class _Clock:
    """A clock that goes on by a tenth of a second whenever somebody looks at it."""

    def __init__(self) -> None:
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.looks / 10


def test_the_clock_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search ends at the first look past the deadline, and looks often: what lies between two looks is short."""
    clock = _Clock()
    monkeypatch.setattr(attack, "time", clock)
    query = Query(wide(), Box(-np.ones(30), np.ones(30)), at_least("v5", 0, 1e6))
    start = time.process_time()
    verdicts = falsify_many([replace(query) for _ in range(200)], timeout_s=0.95)
    assert clock.looks == 11, "once at the start, and ten times until a tenth of a second each has made up the limit"
    assert time.process_time() - start < 3.0
    assert all(isinstance(v, Unknown) and v.reason == "timeout" for v in verdicts)


def test_wrong_starts_are_explained() -> None:
    query = Query(wide(), Box(-np.ones(30), np.ones(30)), TRUE)
    with pytest.raises(BadQuery, match=r"starts must have shape \(count, 30\), got \(4, 7\)"):
        falsify(query, starts=np.zeros((4, 7)))
    with pytest.raises(BadQuery, match="got starts for 1 of 2 queries"):
        falsify_many([query, query], starts=[None])
