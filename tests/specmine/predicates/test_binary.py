"""less(site, i, site, j): truth by hand, partners that tell classes apart, sites of two layers."""

import numpy as np

from specmine.predicates.families import bits, candidates, denote
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.tracing import Sites, trace
from verifier.formula import atom
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

SIZE = 40
LAYER = Linear(np.eye(SIZE), np.zeros(SIZE))
NETWORK = Network("in", (1, SIZE), (Node("a", LAYER, ("in",)), Node("b", Relu(), ("a",)), Node("c", LAYER, ("b",))), "c")
SITES = Sites(NETWORK)


def test_less_is_strict_and_compares_neurons_of_two_sites():
    x = np.zeros((3, SIZE))
    x[:, 0], x[:, 1] = [-1, 0, 2], [-2, 0, 3]
    made = trace(SITES, x, keep=("z1", "h1", "y"))
    assert bits(Predicate("less", ("z1", 0, "z1", 1)), made).tolist() == [False, False, True]
    assert bits(Predicate("less", ("z1", 0, "h1", 1)), made).tolist() == [True, False, True]
    assert denote(Predicate("less", ("z1", 0, "h1", 1)), SITES) == atom({("a", 0): 1, ("b", 1): -1}, 0, strict=True)


def test_a_neuron_is_never_less_than_itself():
    made = trace(SITES, np.zeros((2, SIZE)), keep=("h1", "y"))
    assert not bits(Predicate("less", ("h1", 3, "h1", 3)), made).any()


def test_the_telling_pair_is_a_candidate():
    rng = np.random.default_rng(0)
    heads = np.arange(400) % 2
    x = rng.normal(size=(400, SIZE))
    x[:, 5] += np.where(heads == 0, 4, 0)
    made = trace(SITES, x, keep=("z1", "y"))
    found = candidates("binary", made, grid=Grid(("z1",)), heads=heads)
    less = [p for p in found if p.form == "less"]
    with_five = [p for p in less if 5 in (p.arguments[1], p.arguments[3])]
    assert len(with_five) > 2 * 8  # most neurons that may choose neuron 5 do, besides its own eight partners
    assert len(less) <= 2 * 8 * SIZE and len(found) <= (2 + 4 * 4) * 8 * SIZE
    assert found == candidates("binary", made, grid=Grid(("z1",)), heads=heads)


def test_sums_and_gaps_by_hand():
    assert denote(Predicate("less_by", ("z1", 0, "h1", 1, 0.5)), SITES) == atom({("a", 0): 1, ("b", 1): -1}, 0.5)
    assert denote(Predicate("sum_above", ("z1", 0, "h1", 1, 0.5)), SITES) == atom({("a", 0): -1, ("b", 1): -1}, 0.5)
    assert denote(Predicate("sum_below", ("z1", 0, "h1", 1, 0.5)), SITES) == atom({("a", 0): 1, ("b", 1): 1}, -0.5)
    assert denote(Predicate("sum_below", ("z1", 0, "a", 0, 0.5)), SITES) == atom({("a", 0): 2}, -0.5)
    assert denote(Predicate("less_by", ("z1", 0, "a", 0, 0.5)), SITES) == atom({}, 0.5)
    x = np.zeros((3, SIZE))
    x[:, 0], x[:, 1] = [-1, 0.1, 2], [-2, 0.2, 3]
    made = trace(SITES, x, keep=("z1", "h1", "y"))
    assert bits(Predicate("less_by", ("z1", 0, "z1", 1, 0.1)), made).tolist() == [False, True, True]
    assert bits(Predicate("sum_above", ("z1", 0, "z1", 1, 0.3)), made).tolist() == [False, True, True]
    assert bits(Predicate("sum_below", ("z1", 0, "z1", 1, 0.3)), made).tolist() == [True, False, False]


def test_a_sum_that_tells_heads_apart_is_found_by_its_threshold():
    """x0 + x1 >= 1 for one head alone, though neither neuron nor their difference tells it."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(600, SIZE))
    heads = rng.integers(0, 2, 600)
    x[:, 1] = np.where(heads == 0, 1, -1) * rng.uniform(1, 2, 600) - x[:, 0]
    made = trace(SITES, x, keep=("z1", "y"))
    found = [p for p in candidates("binary", made, grid=Grid(("z1",), partners=40), heads=heads) if p.form == "sum_above"]
    assert any((bits(p, made) == (heads == 0)).all() for p in found if {p.arguments[1], p.arguments[3]} == {0, 1})
