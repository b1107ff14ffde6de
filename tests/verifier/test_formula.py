"""Formulas: negation, normal form and exact truth."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import BadQuery
from verifier.formula import (
    FALSE,
    TRUE,
    And,
    Atom,
    Or,
    Term,
    at_least,
    at_most,
    atom,
    atoms_of,
    conjoin,
    disjuncts,
    holds,
    left_side,
    negate,
)

SIZE = 2
numbers = st.integers(-2, 2)


@st.composite
def atoms(draw):
    terms = {(value, index): draw(numbers) for value in "xy" for index in range(SIZE)}
    return atom(terms, draw(numbers), strict=draw(st.booleans()))


formulas = st.recursive(
    atoms(),
    lambda inner: st.builds(lambda parts, kind: kind(tuple(parts)), st.lists(inner, max_size=3), st.sampled_from([And, Or])),
    max_leaves=8,
)
points = st.fixed_dictionaries({value: st.lists(numbers.map(Fraction), min_size=SIZE, max_size=SIZE) for value in "xy"})


@given(formulas, points)
def test_negation_holds_exactly_where_the_formula_does_not(formula, point):
    assert holds(negate(formula), point) is not holds(formula, point)


@given(formulas)
def test_negation_twice_is_the_formula(formula):
    assert negate(negate(formula)) == formula


@given(formulas, points)
def test_normal_form_means_the_same(formula, point):
    assert holds(formula, point) is any(all(holds(a, point) for a in conjunct) for conjunct in disjuncts(formula))


@given(st.lists(formulas, max_size=3), points)
def test_conjoin_means_and(parts, point):
    assert holds(conjoin(*parts), point) is all(holds(part, point) for part in parts)


@given(formulas)
def test_normal_form_has_no_new_atoms(formula):
    assert {a for conjunct in disjuncts(formula) for a in conjunct} <= set(atoms_of(formula))


def test_constants():
    assert holds(TRUE, {}) and not holds(FALSE, {})
    assert negate(TRUE) == FALSE and negate(FALSE) == TRUE
    assert disjuncts(TRUE) == ((),) and disjuncts(FALSE) == ()
    assert conjoin() == TRUE


def test_ties_separate_strict_from_weak():
    values = {"x": [Fraction(1, 3)]}
    third = Fraction(1, 3)
    assert holds(at_least("x", 0, third), values) and holds(at_most("x", 0, third), values)
    assert not holds(at_least("x", 0, third, strict=True), values) and not holds(at_most("x", 0, third, strict=True), values)


def test_floats_are_the_rationals_they_are():
    assert at_most("x", 0, 0.1).bias == -Fraction(0.1) != -Fraction(1, 10)
    assert left_side(at_most("x", 0, 0.1), {"x": [Fraction(1, 10)]}) == Fraction(1, 10) - Fraction(0.1)


def test_terms_are_sorted_and_zeros_dropped():
    made = atom({("y", 1): 2, ("x", 0): 1, ("x", 1): 0}, 3)
    assert made == Atom((Term("x", 0, Fraction(1)), Term("y", 1, Fraction(2))), Fraction(3))
    assert made == atom({("x", 0): 1.0, ("y", 1): 2.0}, 3.0) and hash(made) == hash(atom({("x", 0): 1, ("y", 1): 2}, 3))


def test_left_side_by_hand():
    made = atom({("x", 0): Fraction(1, 2), ("y", 1): -3}, 1)
    assert left_side(made, {"x": [Fraction(4)], "y": [Fraction(0), Fraction(5)]}) == 2 - 15 + 1


def test_normal_form_is_bounded():
    pair = Or((at_most("x", 0, 0), at_least("x", 1, 1)))
    many = And(tuple(Or((at_most("x", 0, k), at_least("x", 1, k))) for k in range(30)))
    assert len(disjuncts(pair)) == 2
    with pytest.raises(BadQuery, match="over 100000 disjuncts in normal form; split it"):
        disjuncts(many)
