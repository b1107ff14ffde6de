"""What clauses imply, against enumeration of values on a grid; and that nothing a set says is lost with what is dropped."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.predicates.families import denote
from specmine.predicates.predicate import Predicate
from specmine.rules.entailment import Premise, implied, without_implied
from specmine.rules.syntax import parse_clause, parse_clauses
from specmine.tracing import Sites
from verifier.formula import holds
from verifier.network import Network, Node
from verifier.ops import Relu

SITES = Sites(Network("in", (1, 3), (Node("h", Relu(), ("in",)),), "h"))
GRID = [Fraction(k, 4) for k in range(-5, 6)]
POINTS = [{"in": list(x), "h": [max(v, Fraction(0)) for v in x]} for x in product(GRID, repeat=3)]


def truth(predicate):
    return np.array([holds(denote(predicate, SITES), point) for point in POINTS])


def body_truth(clause):
    return np.array([truth(p) for p in clause.body]).all(axis=0) if clause.body else np.ones(len(POINTS), dtype=bool)


@pytest.mark.parametrize(
    ("premise", "literal", "expected"),
    [
        ("above(x,0,2)", "above(x,0,1)", True),
        ("above(x,0,1)", "above(x,0,2)", False),
        ("less(x,0,x,1), less(x,1,x,2)", "less(x,0,x,2)", True),
        ("between(x,0,x,1,x,2)", "less_by(x,0,x,2,0)", True),
        ("between(x,0,x,1,x,2)", "less(x,0,x,2)", False),
        ("less_by(x,0,x,1,0.5), less_by(x,1,x,2,0.5)", "less_by(x,0,x,2,1)", True),
        ("above(x,0,1), above(x,1,1)", "sum_above(x,0,x,1,2)", True),
        ("active(x,0)", "active(h1,0)", True),
        ("active(h1,0)", "active(x,0)", True),
        ("inactive(x,0)", "below(h1,0,0)", True),
        ("above(x,1,0.5)", "above(h1,0,0)", True),
        ("above(x,0,0.5), below(x,0,0.25)", "class(2)", True),
        ("largest(h1,1,h1,0,h1,2)", "class(1)", True),
        ("less(h1,0,h1,1)", "class(1)", False),
    ],
)
def test_what_follows(premise, literal, expected):
    body = parse_clause(f"false :- {premise}.", sites=SITES).body
    head = parse_clause(f"{literal} :- true.", sites=SITES).head
    assert Premise(body, SITES).entails(head) == expected


LITERALS = st.one_of(
    st.builds(
        lambda form, site, i, c: Predicate(form, (site, i, c)),
        st.sampled_from(["above", "below"]),
        st.sampled_from(["x", "h1"]),
        st.integers(0, 2),
        st.sampled_from([-0.5, 0.0, 0.25, 0.75]),
    ),
    st.builds(lambda i, j: Predicate("less", ("x", i, "x", j)), st.integers(0, 2), st.integers(0, 2)),
    st.builds(lambda form, i: Predicate(form, ("h1", i)), st.sampled_from(["active", "inactive"]), st.integers(0, 2)),
)
CLAUSES = st.builds(
    lambda head, body: parse_clause(f"{head} :- {', '.join(map(str, body))}."),
    st.sampled_from(["class(0)", "class(1)", "active(h1,2)"]),
    st.lists(LITERALS, min_size=1, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(CLAUSES, min_size=1, max_size=5))
def test_what_is_dropped_is_said_by_the_rest_at_every_point_of_a_grid(clauses):
    clauses = list(dict.fromkeys(clauses))
    kept = without_implied(clauses, SITES)
    assert [c for c in clauses if c in kept] == kept
    broken_by_kept = np.zeros(len(POINTS), dtype=bool)
    broken_by_all = np.zeros(len(POINTS), dtype=bool)
    for clause in clauses:
        broken = body_truth(clause) & ~truth(clause.head)
        broken_by_all |= broken
        if clause in kept:
            broken_by_kept |= broken
    # Wherever the clauses that stay hold, those that went hold too.
    assert (broken_by_all == broken_by_kept).all()


def test_a_chain_of_others_makes_a_clause_idle():
    chain = parse_clauses("active(h1,2) :- below(x,0,-1).  class(1) :- active(h1,2), inactive(h1,0).")
    idle = parse_clause("class(1) :- below(x,0,-2), above(x,1,0.5).")
    assert implied(idle, chain, SITES) and not implied(idle, chain[:1], SITES) and not implied(idle, chain[1:], SITES)
    assert without_implied([*chain, idle], SITES) == list(chain)


def test_samples_spare_questions_and_change_nothing():
    clauses = parse_clauses("class(0) :- above(x,0,1).  class(0) :- above(x,0,1), below(x,1,0).  class(1) :- above(x,1,1).")
    held = [body_truth(clause) for clause in clauses]
    assert without_implied(clauses, SITES, held=held) == without_implied(clauses, SITES) == [clauses[0], clauses[2]]


def test_constraints_make_bodies_idle():
    constraint, idle = parse_clauses("false :- above(x,0,1), above(x,1,1).  class(2) :- above(x,0,2), above(x,1,3).")
    assert implied(idle, [constraint], SITES) and not implied(constraint, [idle], SITES)
