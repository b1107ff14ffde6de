"""Predicates of three neurons: formulas and truth by hand, and which are proposed."""

import numpy as np

from specmine.predicates.families import bits, candidates, denote
from specmine.predicates.families.ternary import triples_of
from specmine.predicates.form import Grid, Pairs
from specmine.predicates.predicate import Predicate
from specmine.predicates.screening import choose_pairs
from specmine.tracing import Sites, trace
from verifier.formula import And, atom
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

SIZE = 20
LAYER = Linear(np.eye(SIZE), np.zeros(SIZE))
SITES = Sites(Network("in", (1, SIZE), (Node("a", LAYER, ("in",)), Node("b", Relu(), ("a",)), Node("c", LAYER, ("b",))), "c"))
X = np.zeros((4, SIZE))
X[:, 0], X[:, 1], X[:, 2] = [3, 1, 1, 0.1], [1, 2, 1, 0.2], [2, 3, 1, 0.3]
MADE = trace(SITES, X, keep=("z1", "h1", "y"))


def truth(form, *arguments):
    return bits(Predicate(form, arguments), MADE).astype(int).tolist()


def test_truth_by_hand():
    assert truth("largest", "z1", 0, "z1", 1, "z1", 2) == [1, 0, 0, 0]
    assert truth("largest", "h1", 2, "z1", 0, "z1", 1) == [0, 1, 0, 1]
    assert truth("between", "z1", 0, "z1", 1, "h1", 2) == [0, 1, 1, 1]
    assert truth("between", "z1", 1, "z1", 2, "z1", 0) == [1, 0, 1, 0]
    assert truth("sum_over", "z1", 0, "z1", 1, "z1", 2, 0.0) == [1, 1, 1, 1]  # 0.1 + 0.2 is above the float64 0.3
    assert truth("sum_under", "z1", 0, "z1", 1, "z1", 2, 0.0) == [0, 1, 0, 0]
    assert truth("sum_over", "z1", 0, "z1", 1, "z1", 2, 2.0) == [1, 0, 0, 0]


def test_formulas_by_hand():
    assert denote(Predicate("largest", ("z1", 0, "h1", 1, "z1", 2)), SITES) == And(
        (atom({("b", 1): 1, ("a", 0): -1}, 0, strict=True), atom({("a", 2): 1, ("a", 0): -1}, 0, strict=True))
    )
    assert denote(Predicate("between", ("z1", 0, "h1", 1, "z1", 2)), SITES) == And(
        (atom({("a", 0): 1, ("b", 1): -1}, 0), atom({("b", 1): 1, ("a", 2): -1}, 0))
    )
    assert denote(Predicate("sum_over", ("z1", 0, "z1", 1, "h1", 2, 0.5)), SITES) == atom(
        {("a", 0): -1, ("a", 1): -1, ("b", 2): 1}, 0.5
    )
    assert denote(Predicate("sum_under", ("z1", 0, "z1", 1, "z1", 0, 0.5)), SITES) == atom({("a", 1): 1}, -0.5)


def test_triples_stay_with_their_neuron():
    i, j = np.array([0, 0, 0, 0, 0, 2, 3, 3]), np.array([1, 2, 3, 4, 5, 4, 5, 6])
    assert triples_of(Pairs("layer", "h", i, "h", j)).neurons.tolist() == [[0, 1, 2], [0, 3, 4], [3, 5, 6]]
    none = np.zeros(0, dtype=np.int64)
    assert triples_of(Pairs("layer", "h", none, "h", none)).neurons.shape == (0, 3)


def test_candidates_come_from_kept_pairs_and_each_has_its_orders():
    rng = np.random.default_rng(0)
    made = trace(SITES, rng.normal(size=(200, SIZE)), keep=("z1", "h1", "y"))
    grid, heads = Grid(("z1",), thresholds=4, partners=4), np.arange(200) % 3
    (pairs,) = choose_pairs(made, grid, heads)
    kept = {frozenset(pair) for pair in zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)}
    listed = candidates("ternary", made, grid=grid, heads=heads)
    triples = {frozenset(p.arguments[1:6:2]) for p in listed}
    assert all(sum(pair <= triple for pair in kept) >= 2 for triple in triples)
    for form, orders in (("largest", 3), ("between", 6)):
        assert sum(p.form == form for p in listed) == orders * len(triples_of(pairs).neurons)
    over = [p for p in listed if p.form == "sum_over"]
    assert over and all(0 < bits(p, made).sum() < 200 for p in over)
