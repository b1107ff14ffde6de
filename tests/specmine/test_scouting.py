"""The scout's guesses against the toy network's classes, and where it has none to give."""

import numpy as np
import toy

from specmine.pipeline.scouting import scout_of
from specmine.queries import clause_query
from specmine.rules.syntax import parse_clause
from specmine.tracing import Sites
from verifier.formula import at_least
from verifier.network import Network, Node
from verifier.ops import Linear, frozen_array
from verifier.query import Query
from verifier.region import Box

SITES = Sites(toy.network())
UNIT = Box(np.zeros(2), np.ones(2))


def test_a_proof_is_likely_where_the_first_input_is_larger_all_over_the_box():
    scout = scout_of(clause_query(parse_clause("class(0) :- true.", sites=SITES), UNIT, SITES))
    lower = np.array([[0.5, 0.0], [0.0, 0.5], [0.4, 0.4], [0.0, 0.0]])
    upper = np.array([[1.0, 0.4], [0.4, 1.0], [0.6, 0.6], [1.0, 0.1]])
    likely, sides = scout.look(lower, upper)
    assert likely.tolist() == [True, False, False, False]
    assert sides[0] == -1 and sides[3] == 0, "the wide side is cut, where something is open"
    assert set(sides[1:].tolist()) <= {0, 1}


def test_a_body_that_cannot_hold_makes_a_proof_likely():
    scout = scout_of(clause_query(parse_clause("class(1) :- above(h1,0,0.5).", sites=SITES), UNIT, SITES))
    likely, _ = scout.look(np.array([[0.0, 0.6], [0.7, 0.0]]), np.array([[0.3, 0.9], [1.0, 0.1]]))
    assert likely.tolist() == [True, False]


def test_no_scout_for_many_inputs():
    wide = Linear(frozen_array(np.ones((1, 31))), frozen_array(np.zeros(1)))
    network = Network("x", (31,), (Node("y", wide, ("x",)),), "y")
    assert scout_of(Query(network, Box(np.zeros(31), np.ones(31)), at_least("y", 0, 1.0))) is None
