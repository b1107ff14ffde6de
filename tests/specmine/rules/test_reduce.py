import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmine.predicates.predicate import Predicate
from specmine.rules.clause import HornClause
from specmine.rules.reduce import implies, limits_of, reduce_body
from specmine.rules.syntax import parse_clause

GRID = [-2.0, -0.5, -0.0, 0.0, 0.5, 2.0]
thresholds = st.sampled_from(GRID)
neurons = st.sampled_from([("h1", 0), ("h1", 1), ("h2", 0)])


def unary(neuron, form, ends):
    low, high = sorted(ends)
    arguments = {"above": (low,), "below": (low,), "within": (low, high)}.get(form, ())
    return Predicate(form, (*neuron, *arguments))


literals = st.builds(
    unary, neurons, st.sampled_from(["active", "inactive", "above", "below", "within"]), st.tuples(thresholds, thresholds)
)
bodies = st.lists(literals, max_size=7)


def true_at(literal, value):
    form, rest = literal.form, literal.arguments[2:]
    if form in ("active", "inactive"):
        return (operator.gt if form == "active" else operator.le)(value, 0)
    if form == "within":
        return rest[0] <= value <= rest[1]
    return value >= rest[0] if form == "above" else value <= rest[0]


@given(bodies)
def test_the_meaning_stays_and_the_body_shrinks(body):
    clause = HornClause(Predicate("class", (0,)), (*body, Predicate("class", (3,))))
    reduced = reduce_body(clause)
    assert reduced.head == clause.head and Predicate("class", (3,)) in reduced.body
    assert len(reduced.body) <= len(clause.body)
    for neuron in {literal.arguments[:2] for literal in body}:
        old = [literal for literal in clause.body if literal.arguments[:2] == neuron]
        new = [literal for literal in reduced.body if literal.arguments[:2] == neuron]
        assert len(new) <= 2
        for value in [-3.0, -1.0, -0.25, 0.25, 1.0, 3.0, 5e-324, *GRID]:
            assert all(true_at(x, value) for x in old) == all(true_at(x, value) for x in new)
    assert reduce_body(reduced) == reduced


@given(literals, literals)
def test_implication_is_inclusion(first, second):
    values = [-3.0, -1.0, -0.25, 0.25, 1.0, 3.0, 5e-324, *GRID]
    if implies(limits_of(first), limits_of(second)):
        assert all(true_at(second, value) for value in values if true_at(first, value))


@pytest.mark.parametrize(
    ("given_body", "reduced"),
    [
        ("above(h1,0,1.0), above(h1,0,2.0)", "above(h1,0,2.0)"),
        ("active(h1,0), above(h1,0,0.0)", "active(h1,0)"),
        ("active(h1,0), above(h1,0,0.5)", "above(h1,0,0.5)"),
        ("below(h1,0,0.0), below(h1,0,4.0)", "inactive(h1,0)"),
        ("above(h1,0,1.0), below(h1,0,2.0)", "within(h1,0,1.0,2.0)"),
        ("above(h1,0,3.0), below(h1,0,2.0)", "above(h1,0,3.0), below(h1,0,2.0)"),
        ("active(h1,0), below(h1,0,2.0)", "active(h1,0), below(h1,0,2.0)"),
    ],
)
def test_by_hand(given_body, reduced):
    assert str(reduce_body(parse_clause(f"false :- {given_body}."))) == f"false :- {reduced}."
