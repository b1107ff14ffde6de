"""The comparison of families: a relation that no few thresholds express is found, and only where its family is allowed."""

import numpy as np

from specmine.predicates.families import candidates
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table
from specmine.rules.gains import compare_families
from specmine.tracing import Sites, trace
from verifier.network import Network, Node
from verifier.ops import Linear


def difference_trace():
    """Class 0 where x0 > x1: one comparison says it, no few thresholds do."""
    layer = Linear(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]), np.zeros(2))
    sites = Sites(Network("in", (1, 3), (Node("out", layer, ("in",)),), "out"))
    x = np.random.default_rng(0).normal(size=(600, 3))
    return trace(sites, x, keep=("x", "y"))


def test_a_comparison_beats_thresholds():
    made = difference_trace()
    table = build_table(candidates(["unary", "binary"], made, grid=Grid(("x",))), made)
    head = Predicate("class", (0,))
    alone, both = compare_families(table, {head: made.predictions == 0}, max_body=3)
    assert alone.families == ("unary",) and both.families == ("unary", "binary") and both.candidates > alone.candidates
    assert [str(p) for p in both.clauses[0].body] == ["less(x,1,x,0)"]
    assert alone.clauses[0] is not None and {p.form for p in alone.clauses[0].body} <= {
        "active",
        "inactive",
        "above",
        "below",
        "within",
    }


def test_nothing_to_compare():
    made = difference_trace()
    head = Predicate("class", (0,))
    unary = build_table(candidates("unary", made, grid=Grid(("x",))), made)
    assert compare_families(unary, {head: made.predictions == 0}) == []
    empty = np.zeros(made.samples, dtype=bool)
    both = build_table(candidates(["unary", "binary"], made, grid=Grid(("x",))), made)
    assert compare_families(both, {head: empty})[1].clauses == (None,)
