"""Queries that are refused as they are made."""

from fractions import Fraction

import pytest

from verifier.errors import BadQuery
from verifier.formula import And, Atom, Formula, Or, Term, at_least, at_most
from verifier.network import Network, Node
from verifier.ops import Relu
from verifier.query import Query, emptied_input
from verifier.region import Box

NETWORK = Network("x", (1, 2), (Node("y", Relu(), ("x",)),), "y")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((Term("y", 0, Fraction(-1)), Term("y", 0, Fraction(-1))), "two terms for one entry"),
        ((Term("z", 0, Fraction(1)),), "no value 'z' in the network; it has x, y"),
        ((Term("y", 2, Fraction(1)),), "index 2 is out of range"),
        ((Term("y", -1, Fraction(1)),), "index -1 is out of range"),
    ],
)
def test_atoms_that_mean_nothing_here_are_refused(terms: tuple[Term, ...], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        Query(NETWORK, Box([0.0, 0.0], [1.0, 1.0]), Atom(terms, Fraction(3, 2)))


def less(bound: float) -> Atom:
    return at_most("x", 0, bound, strict=True)


@pytest.mark.parametrize(
    ("assertion", "entry"),
    [
        (at_least("x", 0, 2), 0),
        (And((at_least("x", 1, 0.5), at_most("x", 1, 0.25))), 1),
        (And((less(0.5), at_most("x", 0, 0.25), at_least("x", 0, 0.25))), None),
        (And((less(0.25), at_most("x", 0, 0.25), at_least("x", 0, 0.25))), 0),
        (And((at_least("x", 0, 0.25), less(0.5), less(0.25))), 0),
        (Or((at_least("x", 0, 2), at_least("y", 0, 0.5))), None),
        (Or((at_least("x", 1, 2), less(0))), 1),
        (less(0), 0),
        (at_least("y", 0, 2), None),
        (Or(()), None),
    ],
)
def test_bounds_that_leave_no_input_are_found(assertion: Formula, entry: int | None) -> None:
    assert emptied_input(Query(NETWORK, Box([0.0, 0.0], [1.0, 1.0]), assertion)) == entry
