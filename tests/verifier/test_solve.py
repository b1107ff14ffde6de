"""The strategy over the engines, on networks of the benchmark folder and on cases worked out by hand."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from laws.networks import chain, random_network

from verifier import strategy
from verifier.check import check
from verifier.engines import attack
from verifier.engines.problem import Batch, Searched
from verifier.errors import BadQuery
from verifier.evaluate import evaluate
from verifier.formats import read_network
from verifier.formula import FALSE, TRUE, And, Or, at_least, at_most, atom, conjoin
from verifier.network import Network
from verifier.ops import Linear, Relu, frozen_array
from verifier.query import Query
from verifier.region import Box
from verifier.solve import verify, verify_many
from verifier.verdict import Proved, Refuted, Unknown

BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks"))


def absolute() -> Network:
    """y = |x1 + x2| + |x1 - x2|, in [0, 2] on the unit square around 0, by four ReLUs."""
    first = Linear(frozen_array([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]), frozen_array(np.zeros(4)))
    return chain((1, 2), first, Relu(), Linear(frozen_array([[1.0] * 4]), frozen_array([0.0])))


SQUARE = Box(-np.ones(2), np.ones(2))


def test_a_bound_that_needs_splits() -> None:
    query = Query(absolute(), SQUARE, at_least("v3", 0, 2.05))
    assert isinstance(verify(query, engine="bound", timeout_s=5).verdict, Unknown)
    decision = verify(query, engine="split", timeout_s=20)
    assert isinstance(decision.verdict, Proved) and decision.verdict.certificate is not None
    assert decision.splits > 0 and decision.bound is None
    result = check(query, decision.verdict.certificate)
    assert result.accepted and result.splits > 0


def test_the_exact_maximum_is_a_counterexample() -> None:
    verdict = verify(Query(absolute(), SQUARE, at_least("v3", 0, 2)), timeout_s=10).verdict
    assert isinstance(verdict, Refuted)
    assert np.abs(verdict.counterexample).max() == 1


def test_a_relation_between_hidden_neurons_is_a_premise() -> None:
    premise = atom({("v1", 0): 1, ("v1", 2): -1}, 0)  # x1 + x2 <= x1 - x2, so x2 <= 0
    query = Query(absolute(), SQUARE, conjoin(premise, at_least("v1", 0, 1.01)))
    decision = verify(query, timeout_s=10)
    assert isinstance(decision.verdict, Proved) and decision.verdict.certificate is not None
    without = verify(Query(absolute(), SQUARE, at_least("v1", 0, 1.01)), timeout_s=10)
    assert isinstance(without.verdict, Refuted)


def test_logic_is_left_to_z3_before_long_searches() -> None:
    """v3 is at most v3: bounds never see it, since a relation of outputs is no cut."""
    network = random_network("mlp", seed=0)
    one, two = ({(network.output, 0): c, (network.output, 1): -c} for c in (1, -1))
    query = Query(network, Box(np.zeros(3), np.ones(3)), conjoin(atom(one, 0, strict=True), atom(two, 0, strict=True)))
    decision = verify(query, timeout_s=20)
    assert isinstance(decision.verdict, Proved)
    assert decision.seconds < 10


class _Clock:
    """A clock that goes on by step_s whenever somebody looks at it."""

    def __init__(self, step_s: float) -> None:
        self.step_s, self.now_s = step_s, 0.0

    def monotonic(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def difference() -> Network:
    """y = relu(x0 - x1, x1 - x0): which is the larger, and by how much."""
    first = Linear(frozen_array([[1.0, -1.0], [-1.0, 1.0]]), frozen_array(np.zeros(2)))
    return chain((1, 2), first, Relu(), Linear(frozen_array(np.eye(2)), frozen_array(np.zeros(2))))


TIE = atom({("v3", 1): 1, ("v3", 0): -1}, 0)  # y1 <= y0
SMALL = {
    "refuted at exact ties alone": (conjoin(at_most("v2", 0, 0), TIE), Refuted),
    "refuted with room": (conjoin(at_most("v2", 0, 0.5), TIE), Refuted),
    "proved": (conjoin(at_least("v2", 1, 0.125), TIE), Proved),
    "proved where nothing but logic tells": (conjoin(at_least("v2", 1, 0, strict=True), TIE), Proved),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_query_ends_the_same_whatever_the_clock_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first turns end by what they did; a proof comes with a certificate wherever bounds can tell."""
    assertion, kind = SMALL[name]
    query = Query(difference(), Box(np.zeros(2), np.ones(2)), assertion)
    found = []
    for step_s in (0.0, 1e-4, 1e-3):
        clock = _Clock(step_s)
        monkeypatch.setattr(strategy, "time", clock)
        monkeypatch.setattr(attack, "time", clock)
        found.append(verify(query, timeout_s=5))
    assert {type(d.verdict) for d in found} == {kind}
    assert len({(d.engine, d.splits, d.bound) for d in found}) == 1
    if kind is Refuted:
        points = [d.verdict.counterexample.tolist() for d in found if isinstance(d.verdict, Refuted)]
        assert all(point == points[0] for point in points)
    else:
        certified = name == "proved"
        assert all(isinstance(d.verdict, Proved) and (d.verdict.certificate is not None) == certified for d in found)


@pytest.mark.parametrize("engine", ["auto", "boxes", "split", "lp"])
def test_progress_is_told_while_a_query_is_worked_on(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy, "TELL_EVERY_S", 0.0)
    told: list[tuple[int, strategy.Progress]] = []
    other = random_network("mlp", seed=0)
    queries = [
        Query(other, Box(np.zeros(3), np.ones(3)), at_least(other.output, 0, 1000)),
        Query(absolute(), SQUARE, at_least("v3", 0, 2.05)),
    ]
    decisions = verify_many(queries, timeout_s=20, engine=engine, on_progress=lambda k, p: told.append((k, p)))
    assert all(isinstance(d.verdict, Proved) for d in decisions)
    assert {k for k, _ in told} == {1}  # the other is decided before there is anything to tell
    bounds = [p.bound for _, p in told if p.bound is not None]
    assert bounds and max(bounds) <= 0.05 + 1e-9  # y is 2 at most, and no bound says better


def test_a_search_begins_with_the_bounds_that_earlier_turns_found(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network("sigmoids", seed=0)
    query = Query(network, Box(-np.ones(3), np.ones(3)), at_least(network.output, 0, 0.0))
    begun: list[Batch] = []

    def searched(batch: Batch, *_: object, **__: object) -> Searched:
        begun.append(batch)
        return Searched({}, {0: -1.0}, frozenset(), {0: 0})

    monkeypatch.setattr(strategy, "branch_and_bound", searched)
    for turns in (("split",), ("optimise", "split")):
        strategy_ = strategy.Strategy([query], [strategy.Turn(t) for t in turns], name="", timeout_s=20, starts=None, seed=0)
        list(strategy_.run())
    plain, bounded = begun
    widths = [{v: float((high - low).sum()) for v, (low, high) in batch.bounds.items()} for batch in begun]
    assert all(widths[1][v] <= widths[0][v] for v in plain.bounds) and widths[1] != widths[0]
    assert len(bounded.steps[0]) > len(plain.steps[0])


@pytest.mark.parametrize("engine", ["auto", "boxes", "split", "lp", "milp", "smt"])
def test_a_network_without_anything_to_relax(engine: str) -> None:
    network = chain((1, 2), Linear(frozen_array([[1.0, 1.0], [1.0, -1.0]]), frozen_array([0.0, 0.0])))
    twice_x1 = {(network.output, 0): 1, (network.output, 1): 1}
    within, beyond = (atom({key: -c for key, c in twice_x1.items()}, bound) for bound in (1.9, 2.1))
    assert isinstance(verify(Query(network, SQUARE, within), engine=engine, timeout_s=20).verdict, Refuted)
    expected = Unknown if engine == "milp" else Proved  # what it says in floats is no proof
    assert isinstance(verify(Query(network, SQUARE, beyond), engine=engine, timeout_s=20).verdict, expected)


def test_trivial_assertions() -> None:
    never, always = (verify(Query(absolute(), SQUARE, a), timeout_s=5).verdict for a in (FALSE, TRUE))
    assert isinstance(never, Proved)
    assert isinstance(always, Refuted)


def test_disjuncts_with_boxes_of_their_own() -> None:
    cases = Or(
        tuple(And((at_least("x", 0, lo), at_most("x", 0, lo + 0.5), at_least("v3", 0, 2.05))) for lo in (-1, -0.5, 0, 0.5))
    )
    assert isinstance(verify(Query(absolute(), SQUARE, cases), timeout_s=20).verdict, Proved)


def test_queries_over_several_networks_are_decided_in_place() -> None:
    queries = [Query(absolute(), SQUARE, at_least("v3", 0, bound)) for bound in (5, 1)]
    other = random_network("mlp", seed=0)
    queries.insert(1, Query(other, Box(np.zeros(3), np.ones(3)), at_least(other.output, 0, 1000)))
    kinds = [type(d.verdict) for d in verify_many(queries, timeout_s=5)]
    assert kinds == [Proved, Proved, Refuted]


def test_an_unknown_engine() -> None:
    with pytest.raises(BadQuery, match="no engine 'sat'"):
        verify_many([Query(absolute(), SQUARE, TRUE)], engine="sat")


@pytest.mark.slow
@pytest.mark.benchmarks
def test_activation_patterns_of_mnist_over_the_whole_cube() -> None:
    """METHODS 7 names a lead: patterns at d = 0.05 of mnist-net_256x4 prove without search."""
    path = BENCHMARKS / "mnist_fc" / "onnx" / "mnist-net_256x4.onnx"
    if not path.exists():
        pytest.skip(f"no benchmark network at {path}")
    network = read_network(path)
    images = np.loadtxt(BENCHMARKS / "mnist" / "mnist_test_first100.csv", delimiter=",")[:, 1:] / 255
    values = evaluate(network, images)
    predictions = values[network.output].flatten(1).argmax(1)
    queries = []
    for label in range(10):
        body = []
        for node in network.nodes:
            if isinstance(node.op, Relu):
                rate = (values[node.output].flatten(1)[predictions == label] > 0).double().mean(0).tolist()
                body += [at_least(node.output, i, 0, strict=True) for i, r in enumerate(rate) if r >= 0.95]
                body += [at_most(node.output, i, 0) for i, r in enumerate(rate) if r <= 0.05]
        rivals = Or(tuple(atom({(network.output, label): 1, (network.output, j): -1}, 0) for j in range(10) if j != label))
        queries.append(Query(network, Box(np.zeros(784), np.ones(784)), conjoin(*body, rivals)))
    began = time.monotonic()
    decisions = verify_many(queries, timeout_s=30, engine="bound")
    proved = [d for d in decisions if isinstance(d.verdict, Proved)]
    assert len(proved) >= 4, [(type(d.verdict).__name__, d.bound) for d in decisions]
    assert time.monotonic() - began < 600
